"""The producer: takes rows, sends messages, and keeps each row until it is safe."""
