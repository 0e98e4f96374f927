"""``python -m mobile_client`` serves the gateway until it is stopped."""

from mobile_client.settings import MobileSettings

if __name__ == "__main__":
    from mobile_client.gateway.app import create_app
    from shared.serving.server import run_server

    run_server(create_app, MobileSettings)
