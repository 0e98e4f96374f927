"""Protocols of other inference servers, so that their clients can use the gateway unchanged."""
