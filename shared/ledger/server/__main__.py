"""Run the ledger service: ``python -m shared.ledger.server``."""

from shared.extras import imports_of

if __name__ == "__main__":
    with imports_of("the ledger", "service", "ledger"):
        from shared.ledger.server.app import create_app
        from shared.ledger.server.settings import LedgerSettings
        from shared.serving.server import run_server

    run_server(create_app, LedgerSettings)
