"""Agents that harm the others."""
