"""The store's status: looks at each of its parts, for the page, `mds status`, health and metrics."""
