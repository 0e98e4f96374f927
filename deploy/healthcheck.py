"""Exit with 0 if the service in this container is ready, otherwise with 1.

Asks at the address of DIMEE_HOST, or at loopback if the service listens on all addresses.
Uses http.client, because urllib.request would send the request to the proxy of HTTP_PROXY.
"""

import http.client
import os
import ssl
import sys


def address() -> str:
    host = os.environ.get("DIMEE_HOST", "").strip("[]")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def connect(port: int, timeout_s: float) -> http.client.HTTPConnection:
    if not os.environ.get("DIMEE_TLS_CERT"):
        return http.client.HTTPConnection(address(), port, timeout=timeout_s)
    # The certificate is valid for the public name of the service, not for its own address.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if os.environ.get("DIMEE_TLS_CLIENT_CERT"):
        key = os.environ.get("DIMEE_TLS_CLIENT_KEY") or None
        context.load_cert_chain(os.environ["DIMEE_TLS_CLIENT_CERT"], key)
    return http.client.HTTPSConnection(address(), port, timeout=timeout_s, context=context)


def is_ready(port: int, timeout_s: float = 3.0) -> bool:
    connection = connect(port, timeout_s)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ["DIMEE_PORT"])) else 1)
