"""Experiment files that ship, and their analysis."""
