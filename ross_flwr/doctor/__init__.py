"""Checks of an installation and of a node of a deployment."""

from ross_flwr.doctor.finding import Finding
from ross_flwr.doctor.node import examine, serve

__all__ = ["Finding", "examine", "serve"]
