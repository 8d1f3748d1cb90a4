"""The worker: messages in, one job to the pool, rows committed, each message acknowledged by its own outcome."""
