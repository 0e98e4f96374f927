"""Telemetry of all services: metrics for Prometheus, and traces for OpenTelemetry."""
