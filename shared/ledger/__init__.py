"""The shared ledger, in which each attempt is recorded by its caller and by its tier.

Each process writes entries to its durable `outbox`, the `shipper` delivers them to the ledger
service (`server`), and `client` and `cli` read them there.
"""
