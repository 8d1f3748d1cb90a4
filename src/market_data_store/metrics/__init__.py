"""Prometheus metrics: definitions, counting by several processes as one, and a server for worker and monitor."""
