"""The Flask application: health, metrics, admin endpoints and the status page."""
