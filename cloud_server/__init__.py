"""cloud server."""
