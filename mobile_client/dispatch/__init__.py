"""Answers routed texts: attempts, retries, hedges, escalation and fail-over."""
