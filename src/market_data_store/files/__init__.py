"""Rows out of files, files through the store, and rows into files."""
