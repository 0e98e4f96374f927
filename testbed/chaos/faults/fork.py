"""A program with a `MobileClient` that forks again and again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DimeeError
from testbed.chaos.fault_injector import FaultInjector
from testbed.processes.children import start_child
from testbed.processes.ports import free_ports
from testbed.processes.temporary import temporary_folder

END_S = 60.0
"""Longest time in seconds until the program and its children have ended."""


@contextmanager
def fork(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Fork children of a client process until the end of the block, beside the testbed.

    The client has a state folder of its own, and its ledger is down. Raises `DimeeError` if the
    program or a child fails (`testbed.chaos.forking_client`), or if they do not end within `END_S`.
    """
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    with temporary_folder("fork") as folder:
        program = start_child(
            ["-m", "testbed.chaos.forking_client"],
            env=os.environ
            | {"TMPDIR": str(folder), "DIMEE_STATE_DIR": str(folder), "DIMEE_LEDGER_URL": nowhere},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield
        finally:
            try:
                printed, _ = program.communicate("", timeout=END_S)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()
                raise DimeeError(f"a program that forks did not end in {END_S:.0f} s") from None
        if program.returncode != 0:
            last = (printed.strip().splitlines() or ["it printed nothing"])[-1]
            raise DimeeError(f"a program that forks failed: {last}")
