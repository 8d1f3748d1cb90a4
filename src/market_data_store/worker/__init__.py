"""The worker: merges messages into jobs, commits their rows, and acknowledges each message by its own outcome."""
