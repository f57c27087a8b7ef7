"""What a single agent computes. Imports neither Flower nor gRPC."""
