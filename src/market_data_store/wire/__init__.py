"""What a message may hold, as JSON rows or as an Arrow table, and what it becomes: typed columns and rejects."""
