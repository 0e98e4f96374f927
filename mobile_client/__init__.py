"""mobile client."""
