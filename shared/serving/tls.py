"""TLS options for uvicorn from the settings, checked before the service listens."""

from __future__ import annotations

import ssl
from typing import Any

from shared.errors import InvalidInput
from shared.files import check_regular
from shared.settings import ServiceSettings


def tls_options(settings: ServiceSettings) -> dict[str, Any]:
    """Return the TLS options of `uvicorn.run`; empty without ``tls_cert``.

    Raises `InvalidInput`, which names the file, if a file is missing, invalid or has a password.
    """
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is None:
        for name, value in (("KEY", key), ("CLIENT_CA", client_ca)):
            if value is not None:
                raise InvalidInput(f"settings: DIMEE_TLS_{name} needs DIMEE_TLS_CERT")
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        for file in filter(None, (cert, key)):
            check_regular(file)
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError):
        raise InvalidInput(
            f"DIMEE_TLS_CERT: {cert} and its key ({key or 'in the same file'}) cannot be used "
            "together; both are PEM files without a password"
        ) from None
    options: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key}
    if client_ca is not None:
        try:
            check_regular(client_ca)
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError):
            raise InvalidInput(
                f"DIMEE_TLS_CLIENT_CA: {client_ca} contains no PEM certificates"
            ) from None
        options |= {"ssl_ca_certs": str(client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def _no_password() -> str:
    raise ValueError("the key has a password")
