"""What runs the steps of one node's agents: hosts, rounds, envelopes."""
