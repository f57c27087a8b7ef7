"""What runs the steps of the agents of one node: hosts, rounds, envelopes."""
