"""Postgres: the transaction that writes rows, the schema and its revisions, and the store's own tables."""
