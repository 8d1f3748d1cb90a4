"""Files: reading rows from them, loading them through the store, and exporting rows to them."""
