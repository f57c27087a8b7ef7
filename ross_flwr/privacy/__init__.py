"""Differential privacy of the examples that agents train on: clipping, noise, and what both add up to."""

from ross_flwr.privacy.link import Blurred
from ross_flwr.privacy.privacy import Privacy

__all__ = ["Blurred", "Privacy"]
