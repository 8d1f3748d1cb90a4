"""kombu's Redis transport, which takes and records messages in one step and sends acknowledgements together."""
