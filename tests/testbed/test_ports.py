"""Ports of the loopback interface."""

from __future__ import annotations

import errno
import socket

import pytest

from shared.errors import DimeeError
from testbed.processes import ports


class WithoutLoopback(socket.socket):
    def bind(self, address: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")


def test_taken_port_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not ports.is_free(taken.getsockname()[1])


def test_machine_without_a_loopback_address_is_told_apart_from_a_taken_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports.socket, "socket", WithoutLoopback)
    with pytest.raises(DimeeError, match=r"127\.0\.0\.1 is not an address of this machine"):
        ports.is_free(8700)
