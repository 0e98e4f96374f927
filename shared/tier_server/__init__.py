"""The HTTP server that edge and cloud share: admission, engine, endpoints."""
