"""A program with a `MobileClient` forks, again and again, beside the testbed's own mobile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DimeeError
from testbed.chaos.fault_injector import FaultInjector
from testbed.processes.children import start_child

END_S = 30.0
"""Longest time in seconds until the program and its children have ended."""
PROGRAM = """
import os, sys, threading
from mobile_client import ClientUnusable, DimeeError, MobileClient

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
mobile = MobileClient(policy="mobile")

def load():
    while not over.is_set():
        try:
            mobile.classify("a wonderful film")
        except DimeeError:
            over.wait(0.05)

threading.Thread(target=load, daemon=True).start()
while True:
    child = os.fork()
    if child == 0:
        try:
            mobile.classify("a wonderful film")
        except ClientUnusable:
            mobile.close()
            sys.exit(0)
        sys.exit(1)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("a forked child did not get ClientUnusable")
    if over.wait(0.1):
        break
mobile.close(flush_s=0.0)
"""


@contextmanager
def fork(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Fork children of a client process until the end of the block.

    Each child calls the client that it inherited, and must get an error and end. The program uses
    the state folder of the testbed, and its entries go to the testbed's ledger. Raises `DimeeError`
    if a child or the program fails, or does not end within `END_S`.
    """
    program = start_child(
        ["-c", PROGRAM],
        env=injector.client_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        try:
            printed, _ = program.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()
            raise DimeeError(f"a program that forks did not end within {END_S:.0f} s") from None
    if program.returncode != 0:
        lines = printed.decode(errors="replace").strip().splitlines()
        raise DimeeError(f"a program that forks failed: {lines[-1] if lines else 'no output'}")
