"""The Flask application: health, metrics, admin, and the status page."""
