"""Several replicas of a tier in a testbed: their names, ports and state folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from testbed.processes.processes import Role

MAX_REPLICAS = 16
"""Most replicas of a tier in a testbed, each of which is a process with its own workers."""
PORT_STEP = 100
"""Distance of the ports of two replicas, unless their ports are given."""


def replica_names(tier: str, count: int) -> list[str]:
    """Return the names of the replicas: ``cloud-1``, ``cloud-2`` …, or ``cloud`` for a single one.

    They are both the names of the processes and the values of ``DIMEE_REPLICA``.
    """
    return [tier] if count == 1 else [f"{tier}-{number}" for number in range(1, count + 1)]


def replica_ports(tier: str, count: int, ports: Mapping[str, int]) -> dict[str, int]:
    """Return the port of each replica: its own in ``ports``, or one counted from the tier's."""
    return {
        name: ports.get(name, ports[tier] + number * PORT_STEP)
        for number, name in enumerate(replica_names(tier, count))
    }


def replica_roles(
    tier: str,
    module: str,
    ports: Mapping[str, int],
    state_dir: Path,
    settings: Mapping[str, str],
) -> list[Role]:
    """Return a process for each replica of ``ports``.

    Each of several has a state folder of its own, as if it had its own machine: its outbox waits
    there for the process that is started again under its name.
    """
    roles = []
    for name, port in ports.items():
        own = {"DIMEE_REPLICA": name}
        if len(ports) > 1:
            own["DIMEE_STATE_DIR"] = str(state_dir / "replicas" / name)
        roles.append(Role(name, module, port, {**settings, **own}, tier=tier))
    return roles


def replica_urls(ports: Mapping[str, int]) -> str:
    """Return the addresses of the replicas, as ``DIMEE_EDGE_URL`` lists them."""
    return ",".join(f"http://127.0.0.1:{port}" for port in ports.values())
