"""What is learned: models, losses, data."""

from ross_flwr.tasks.images import Images, images
from ross_flwr.tasks.task import Task

__all__ = ["Images", "Task", "images"]
