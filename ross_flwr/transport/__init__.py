"""How messages travel. Knows no mathematics."""
