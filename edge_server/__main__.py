"""Serve until stopped: ``python -m edge_server``."""

from shared.extras import imports_of

if __name__ == "__main__":
    with imports_of("the edge", "service"):
        from edge_server.app import create_app
        from edge_server.settings import EdgeSettings
        from shared.serving.server import run_server

    run_server(create_app, EdgeSettings)
