"""A gateway without servers, in the test's process: it answers with the mobile's own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from tests.support.paths import BUNDLE, free_ports


def make_gateway(folder: Path, **settings: Any) -> FastAPI:
    """Return a gateway whose edge, cloud and ledger refuse connections."""
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    urls = {"edge_url": edge, "cloud_url": cloud, "ledger_url": ledger}
    given = {"bundle": BUNDLE, "state_dir": folder, "policy": "mobile"} | urls | settings
    return create_app(MobileSettings(**given))
