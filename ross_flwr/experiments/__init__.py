"""Experiment files for `ross-flwr compare`, and what makes tables of them that it does not make."""
