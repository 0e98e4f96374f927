"""The mobile client that runs in a browser: its files, and what the gateway serves for it."""
