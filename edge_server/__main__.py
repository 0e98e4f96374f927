"""Serve until stopped: ``python -m edge_server``."""

from edge_server.app import create_app
from edge_server.settings import EdgeSettings
from shared.serving.server import run_server

if __name__ == "__main__":
    run_server(create_app, EdgeSettings)
