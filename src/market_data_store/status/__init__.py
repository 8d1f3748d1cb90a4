"""One look at each part of the store, for the page, the terminal, health and metrics."""
