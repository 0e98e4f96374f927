"""The ledger service and its database. All SQL of the project is in this package."""
