"""Who talks to whom, and the mixing matrix."""
