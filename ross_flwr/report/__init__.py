"""What a run leaves for people: history, tables, the folder of results."""
