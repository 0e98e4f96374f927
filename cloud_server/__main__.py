"""Serve until stopped: ``python -m cloud_server``."""

from shared.extras import imports_of

if __name__ == "__main__":
    with imports_of("the cloud", "service"):
        from cloud_server.app import create_app
        from cloud_server.settings import CloudSettings
        from shared.serving.server import run_server

    run_server(create_app, CloudSettings)
