"""Monitoring of certificates in production: audits, drift detection, alarms."""
