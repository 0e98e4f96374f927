"""Run the ledger service: ``python -m shared.ledger.server``."""

from shared.ledger.server.app import create_app
from shared.ledger.server.settings import LedgerSettings
from shared.serving.server import run_server

if __name__ == "__main__":
    run_server(create_app, LedgerSettings)
