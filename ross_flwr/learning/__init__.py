"""What ONE agent computes. Imports neither Flower nor grpc."""
