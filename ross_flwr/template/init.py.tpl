"""$name: agents that learn together."""
