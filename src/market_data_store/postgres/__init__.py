"""Postgres: one transaction of rows, the schema and its revisions, and what is kept beside the datasets."""
