"""Calibration of certificates."""
