"""What a run leaves on the disk: rounds, events and checkpoints in SQLite."""
