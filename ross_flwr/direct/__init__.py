"""Node to node over gRPC with mutual TLS."""
