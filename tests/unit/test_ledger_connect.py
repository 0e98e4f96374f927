"""The ledger's client with an address at which no connection is ever accepted."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from shared.errors import LedgerUnavailable
from shared.ledger import client


def test_address_that_never_accepts_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_S", 0.2)
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # with its queue full, the system drops further connections
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        ledger = client.LedgerClient(f"http://127.0.0.1:{full.getsockname()[1]}")
        stack.callback(ledger.close)
        with pytest.raises(LedgerUnavailable, match="timed out"):
            ledger.summary()
