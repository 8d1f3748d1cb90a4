"""kombu's Redis transport, with messages taken and recorded in one step, and acknowledgements sent together."""
