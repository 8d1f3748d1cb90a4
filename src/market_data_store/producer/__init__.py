"""The producer: rows in, messages out, and each row kept until it is safe."""
