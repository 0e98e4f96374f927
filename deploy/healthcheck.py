"""Exit 0 if the service in this container says that it is ready.

http.client and not urllib.request, because the latter would send a loopback request to the proxy
that a site's HTTP_PROXY names.
"""

import http.client
import os
import ssl
import sys


def connect(port: int, timeout_s: float) -> http.client.HTTPConnection:
    if not os.environ.get("DIMEE_TLS_CERT"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    # this container asks itself: the certificate is for the name that others call it by
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if os.environ.get("DIMEE_TLS_CLIENT_CERT"):
        key = os.environ.get("DIMEE_TLS_CLIENT_KEY") or None
        context.load_cert_chain(os.environ["DIMEE_TLS_CLIENT_CERT"], key)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_s, context=context)


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
