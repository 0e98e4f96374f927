"""Kinds of faults that the schedules inject, one module each.

To add a kind, write its context manager in a module of its own and give it a line in `FAULTS`.
"""

from __future__ import annotations

from testbed.chaos.fault_injector import HOPS, LAYER_PROCESSES, ROLES
from testbed.chaos.faults.connections import UNFINISHED, half_open, slow_heads
from testbed.chaos.faults.fault_kind import FaultKind
from testbed.chaos.faults.fork import fork
from testbed.chaos.faults.kill import kill
from testbed.chaos.faults.link import BAD_LINKS, link
from testbed.chaos.faults.pause import pause
from testbed.chaos.faults.reset_after_accept import reset_after_accept
from testbed.chaos.faults.terminate import terminate
from testbed.chaos.faults.unwritable import disk_full, read_only

FAULTS: dict[str, FaultKind] = {
    "kill": FaultKind(
        kill, (*ROLES, *LAYER_PROCESSES), stops_the_process=True, over_at_once=True, weight=2
    ),
    "pause": FaultKind(pause, (*ROLES, *LAYER_PROCESSES), stops_the_process=True, weight=2),
    "link": FaultKind(link, HOPS, BAD_LINKS, weight=4),
    "reset-after-accept": FaultKind(reset_after_accept, HOPS, weight=2),
    "slow-heads": FaultKind(slow_heads, ROLES),
    "half-open": FaultKind(half_open, ROLES, tuple(UNFINISHED)),
    "disk-full": FaultKind(disk_full, ROLES),
    "read-only": FaultKind(read_only, ROLES),
    "terminate": FaultKind(terminate, ROLES, stops_the_process=True, weight=2),
    "fork": FaultKind(fork, ("mobile",)),
}
