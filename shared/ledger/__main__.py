"""``python -m shared.ledger`` serves until stopped."""

from shared.ledger.app import create_app
from shared.ledger.settings import LedgerSettings
from shared.service.plumbing import run_server

if __name__ == "__main__":
    run_server(create_app, LedgerSettings)
