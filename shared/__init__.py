"""Code that all tiers and the lab share. It imports no other package of the project."""
