"""edge server."""
