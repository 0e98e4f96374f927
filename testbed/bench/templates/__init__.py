"""Jinja2 template of the benchmark page."""
