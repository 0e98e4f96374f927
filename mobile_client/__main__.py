"""``python -m mobile_client`` serves the gateway until it is stopped."""

from mobile_client.settings import MobileSettings
from shared.extras import imports_of

if __name__ == "__main__":
    with imports_of("the gateway", "service"):
        from mobile_client.gateway.app import create_app
        from shared.serving.server import run_server

    run_server(create_app, MobileSettings)
