"""What a run will take: time, bytes and memory, before it is made."""
