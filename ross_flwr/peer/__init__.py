"""What agents on different nodes say to each other, as generated from proto/."""
