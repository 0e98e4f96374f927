"""Certificates in service: audits, drift detection, alarms."""
