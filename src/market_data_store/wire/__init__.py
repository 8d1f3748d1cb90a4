"""The wire format: what a message may hold (JSON rows or an Arrow table), decoded into typed columns and rejects."""
