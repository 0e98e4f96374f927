"""Program with a `MobileClient` that forks until its input ends; see `testbed.chaos.faults.fork`.

A thread uses the client meanwhile. Each forked child calls the client that it inherited, and must
get `ClientUnusable` and end; then the client must still answer in the parent.
"""

from __future__ import annotations

import os
import sys
import threading

from mobile_client import ClientUnusable, DimeeError, MobileClient

TEXT = "a wonderful film"
INTERVAL_S = 0.1
FLUSH_S = 0.1


def main() -> None:
    """Fork until the input ends; exit with a sentence if a child or the client fails."""
    over = threading.Event()
    with MobileClient(policy="mobile") as mobile:
        for work in (lambda: _wait_for_end(over), lambda: _classify_until(over, mobile)):
            threading.Thread(target=work, daemon=True).start()
        while not over.wait(INTERVAL_S):
            child = os.fork()
            if child == 0:
                _call_in_child(mobile)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status != 0:
                sys.exit(f"a forked child ended with {status}")
        mobile.close(FLUSH_S)
    if error := _error_of(mobile):
        sys.exit(0 if "closed" in error.message else f"the closed client: {error.message}")
    sys.exit("the closed client answered")


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _classify_until(over: threading.Event, mobile: MobileClient) -> None:
    while not over.is_set():
        _error_of(mobile)  # late answers of a busy machine are errors


def _call_in_child(mobile: MobileClient) -> None:
    error = _error_of(mobile)
    mobile.close()
    sys.exit(0 if isinstance(error, ClientUnusable) else 1)


def _error_of(mobile: MobileClient) -> DimeeError | None:
    try:
        mobile.classify(TEXT)
    except DimeeError as error:
        return error
    return None


if __name__ == "__main__":
    main()
