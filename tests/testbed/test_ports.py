"""Ports of the loopback interface."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import DimeeError
from testbed.processes import ports
from testbed.processes.ports import PortReservations


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
    monkeypatch.setattr(socket, "socket", WithoutLoopback)
    with pytest.raises(DimeeError, match=r"127\.0\.0\.1 is not an address of this machine"):
        ports.is_free(8700)


CHILD = """
import sys
from testbed.processes.ports import PortReservations
reservations = PortReservations(sys.argv[1])
print(*reservations.choose(int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def test_processes_choose_different_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another process has chosen is not free until that process ends."""
    name = f"test-{os.getpid()}-{tmp_path.name}"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, name, "40"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        theirs = {int(port) for port in child.stdout.readline().split()}
        reservations = PortReservations(name)
        monkeypatch.setattr(reservations, "_ports", sorted(theirs))
        assert len(theirs) == 40
        with pytest.raises(DimeeError, match="1 ports are needed, but only 0 are free"):
            reservations.choose(1)
        assert child.stdin is not None
        child.stdin.close()
        child.wait(60)
    assert set(reservations.choose(40)) == theirs


def test_ports_are_not_those_of_outgoing_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if high - low > 50_000:
        pytest.skip("this machine uses nearly all ports for outgoing connections")
    chosen = PortReservations(f"test-{os.getpid()}").choose(50)
    assert len(set(chosen)) == 50
    assert all(not low <= port <= high for port in chosen)


def test_oldest_reservation_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MAX_RESERVED", 3)
    reservations = PortReservations(f"test-{os.getpid()}")
    oldest = reservations.choose(1)
    reservations.choose(3)
    monkeypatch.setattr(reservations, "_ports", oldest)
    assert reservations.choose(1) == oldest
