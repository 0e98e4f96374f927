"""Storm of SIGTERM: a process is told to stop again and again, also while it stops or starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.chaos.fault_injector import FaultInjector

INTERVAL_S = 0.05


@contextmanager
def terminate(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Send SIGTERM to a role every `INTERVAL_S` until the end of the block.

    The testbed restarts a process that has stopped, and the storm goes on with its successor. For
    the mobile, the end waits until it is ready again.
    """
    calm = threading.Event()

    def storm() -> None:
        while not calm.is_set():
            injector.inject("terminate", name)
            calm.wait(INTERVAL_S)

    sender = threading.Thread(target=storm, name=f"terminate {name}")
    sender.start()
    try:
        yield
    finally:
        calm.set()
        sender.join()
    if name == "mobile":
        injector.wait_ready(name)
