"""Version of dimee, which the images do not install as a distribution."""

VERSION = "0.1.0"
"""The version of pyproject.toml."""
