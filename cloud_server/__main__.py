"""Serve until stopped: ``python -m cloud_server``."""

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.serving.server import run_server

if __name__ == "__main__":
    run_server(create_app, CloudSettings)
