"""Metrics and traces of the services; a local answer of the mobile loads none of it."""
