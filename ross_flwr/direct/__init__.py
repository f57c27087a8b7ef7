"""Node to node: messages between agents over gRPC with mutual TLS."""

import os

# Or gRPC writes a line for every handshake that fails, and anybody can fill the log. It looks here when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
