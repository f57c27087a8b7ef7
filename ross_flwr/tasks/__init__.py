"""What is learned: models, losses, data."""
