"""Serving the same weights with this project and with others; and the ledger's speed."""
