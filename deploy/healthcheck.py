"""Exit 0 if the service in this container says that it is ready.

http.client and not urllib.request, because the latter would send a loopback request to the proxy
that a site's HTTP_PROXY names.
"""

import http.client
import os
import sys


def is_ready(port: int, timeout_s: float = 3.0) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ["DIMEE_PORT"])) else 1)
