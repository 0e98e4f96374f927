"""Name of a replica: of one of the processes that serve a tier."""

from __future__ import annotations

import re
import socket

HEADER = "dimee-replica"
"""Header in which every response of a tier names the replica that gives it."""
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def host_replica() -> str:
    """Return the name of this host, as a replica's name: in a StatefulSet, that of the pod."""
    return _UNUSUAL.sub("-", socket.gethostname())[:64] or "unnamed"


def replica_of(header: str | None) -> str | None:
    """Return the replica that a response's `HEADER` names; None without one, or for no name."""
    return header if header is not None and _NAME.fullmatch(header) else None
