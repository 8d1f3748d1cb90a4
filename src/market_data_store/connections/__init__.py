"""How servers are addressed, and how few connections to them are enough."""
