"""Prometheus: what is counted, by several processes as one, and served by those that are not web servers."""
