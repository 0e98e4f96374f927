"""The relay of a fleet's links as a process, and the measurement of each class's link."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.errors import DimeeError
from testbed.links.device_relay import probe_address
from testbed.links.probe import (
    MAX_OVERHEAD_MS,
    Measurement,
    measure_rate,
    measure_round_trips,
    probe_target,
)
from testbed.load.fleet.mix import DeviceClass, link_of
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import free_ports

START_S = 30.0


class RelayProcess:
    """A running `testbed.links.device_relay`; ``ports`` are those for each of its servers."""

    def __init__(self, process: subprocess.Popen[str], ports: list[int], probe_port: int) -> None:
        self._process = process
        self.ports = ports
        self._probe_port = probe_port

    def measure(self, classes: Sequence[DeviceClass], folder: Path) -> list[dict[str, Any]]:
        """Measure one link of each class, after the relay's own delay is subtracted.

        A link with a packet trace is measured at the trace's mean rates.
        """
        links = [link_of(one, folder).link for one in classes]
        overhead_ms, measurements = 0.0, []
        for number, (one, link) in enumerate(zip(classes, links, strict=True)):
            assert link is not None
            source = probe_address(number)
            up, down = (
                measure_rate(self._probe_port, link, direction, source)
                for direction in ("up", "down")
            )
            for _ in range(2):
                echoes = measure_round_trips(self._probe_port, link, source)
                rtt_ms = statistics.median(echoes) * 1e3
                if number:
                    break
                excess_ms = (rtt_ms - link.round_trip_ms) / 2
                overhead_ms = min(max(0.0, overhead_ms + excess_ms), MAX_OVERHEAD_MS)
                self._say(f"{overhead_ms:.4f}")
            measurement = Measurement(
                one.name, one.link, link.round_trip_ms, round(rtt_ms, 3), link.up_mbps,
                round(up, 3), link.down_mbps, round(down, 3), round(overhead_ms, 4), len(echoes),
            )  # fmt: skip
            measurements.append(measurement.as_json())
        return measurements

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._process.stdout.readline()


@contextmanager
def start_relay(
    classes: Sequence[DeviceClass],
    devices: Sequence[str],
    targets: Sequence[int],
    folder: Path,
    seed: int,
    log: Path,
) -> Iterator[RelayProcess]:
    """Start the relay in front of the servers at the ports ``targets``, and stop it at the end.

    ``devices`` has the name of each device's class.
    """
    *ports, probe_port = free_ports(len(targets) + 1)
    with probe_target() as probe, log.open("wb") as errors:
        plan = {
            "folder": str(folder.absolute()),
            "links": {one.name: one.link for one in classes},
            "devices": list(devices),
            "servers": [*zip(ports, targets, strict=True), (probe_port, int(probe.split(":")[1]))],
            "seed": seed,
        }
        process = start_child(
            ["-m", "testbed.links.device_relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(plan) + "\n")
            process.stdin.flush()
            wait_for_line(process, "ready", START_S, "the relay of the links", log)
            yield RelayProcess(process, ports, probe_port)
        finally:
            stop_all([process])
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def wait_for_line(
    process: subprocess.Popen[str], line: str, timeout_s: float, name: str, log: Path
) -> None:
    """Read the next line of a process, which must be ``line``; raises `DimeeError`."""
    assert process.stdout is not None
    watch = threading.Timer(timeout_s, process.kill)
    watch.start()
    try:
        found = process.stdout.readline().strip()
    finally:
        watch.cancel()
    if found != line:
        lines = log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("dimee: ") if lines else f"not {line} after {timeout_s:g} s"
        raise DimeeError(f"{name} failed: {reason}")
