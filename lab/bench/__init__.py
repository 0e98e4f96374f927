"""Serving the same weights and texts with this project and with what people use instead."""
