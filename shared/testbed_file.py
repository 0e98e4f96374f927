"""The file by which commands find a running testbed: ``testbed.json`` in its state folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shared.errors import DimeeError

TESTBED_FILE = "testbed.json"


def read_testbed_file(folder: Path) -> dict[str, Any]:
    """Return what a running testbed wrote; raises `DimeeError` where no testbed runs."""
    try:
        facts = json.loads((folder / TESTBED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DimeeError(
            f"no testbed runs in {folder}; start one with: dimee up --link mobile-edge=4g, "
            "or name its folder with --state-dir"
        ) from None
    return dict(facts)


def running_addresses(folder: Path) -> dict[str, str]:
    """Return the address of each service of the testbed in ``folder``; empty if none runs.

    Those of a tier's replicas have commas between them, as ``DIMEE_EDGE_URL`` lists them.
    A testbed that was killed leaves its file behind, so its process must exist, too.
    """
    try:
        facts = read_testbed_file(folder)
        urls: dict[str, str] = {}
        for name, role in facts["roles"].items():
            service = str(role.get("tier", name))
            urls[service] = ",".join(filter(None, (urls.get(service), str(role["url"]))))
        os.kill(int(facts["pid"]), 0)
    except PermissionError:  # the process is another user's
        return urls
    except (DimeeError, OSError, OverflowError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return urls
