"""HTTP client of a mobile's gateway, and the description of its bundle."""

from __future__ import annotations

import httpx

from shared.addresses import check_address
from shared.bounded_transport import BoundedTransport
from shared.credentials import Credentials
from shared.errors import DimeeError, from_payload
from shared.http_fetch import fetch, json_of
from shared.redaction import without_credentials
from shared.wire import BundleDescription

BUNDLE_PATH = "/v1/bundle"


def gateway_client(url: str, credentials: Credentials, timeout_s: float = 60.0) -> httpx.Client:
    """Return a client that sends the credentials and uses no proxy; the caller closes it."""
    return httpx.Client(
        base_url=check_address(url, "url"),
        transport=BoundedTransport(credentials.verify),
        trust_env=False,
        timeout=timeout_s,
        auth=credentials.auth,
    )


def fetch_bundle(http: httpx.Client) -> BundleDescription:
    """Ask a gateway for the description of its bundle; raises `DimeeError`."""
    try:
        response = fetch(http, "GET", BUNDLE_PATH)
        if response.status_code != httpx.codes.OK:
            raise from_payload(json_of(response), response.status_code)
        return BundleDescription.model_validate_json(response.content)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
    except ValueError:  # also pydantic's ValidationError
        reason = f"status {response.status_code}, unknown format"
    shown = without_credentials(str(http.base_url))
    raise DimeeError(f"no gateway answers at {shown} ({reason}); start a testbed: dimee up")
