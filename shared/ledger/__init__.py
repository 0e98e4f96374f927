"""The shared ledger: double-entry records of every attempt, from durable outboxes to one store."""
