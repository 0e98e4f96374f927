"""HTTP server that edge and cloud share: application, endpoint, service, admission, engine."""
