"""Studies beyond the paper's tables; each writes a JSON and a page."""
