"""Shared by tests: REPOSITORY, BUNDLE, free_ports."""

from __future__ import annotations

import socket
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


BUNDLE = REPOSITORY / "bundles" / "sst2-minilm"


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
