"""The ledger service and its database. The only place with SQL."""
