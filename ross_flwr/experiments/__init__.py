"""Experiment files for `ross-flwr compare`."""
