"""Process of many devices: ``python -m testbed.load.fleet.worker SPEC``.

It prints ``ready`` when all devices are open, reads the time of the start (`time.monotonic`), sends
the requests, delivers the outboxes and writes the report of each device to the file of the spec.
SIGTERM ends the sending early.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobile_client.local.model import LocalModel
from shared.domain import InputText
from shared.errors import DimeeError
from testbed.links.device_relay import allow_descriptors
from testbed.load.arrivals import FLAT, poisson
from testbed.load.fleet.device import DeviceSpec, SimulatedDevice

FLUSH_S = 60.0
"""Longest time until the outboxes are delivered at the end."""
THREADS = 16
"""Outboxes that are opened or delivered at the same time."""


def planned(
    spec: DeviceSpec, duration_s: float, texts: list[InputText], seed: int
) -> list[tuple[float, int, InputText]]:
    """Return the requests of a device: time in seconds, its number, and the text."""
    rng = random.Random(f"{seed}:{spec.number}")
    times = poisson(spec.requests_per_s, duration_s, FLAT, rng.getrandbits(32))
    return [(at, spec.number, rng.choice(texts)) for at in times]


def open_all(specs: list[DeviceSpec], model: LocalModel) -> dict[int, SimulatedDevice]:
    """Open the devices; several at the same time, because each waits for the disk.

    The first of each class loads the layers that its policy needs.
    """
    first = {one.class_name: one for one in reversed(specs)}
    devices = {one.number: SimulatedDevice(one, model) for one in first.values()}
    others = [one for one in specs if one.number not in devices]
    with ThreadPoolExecutor(THREADS) as openers:
        opened = openers.map(lambda one: SimulatedDevice(one, model), others)
        devices |= {device.spec.number: device for device in opened}
    return devices


async def send_all(
    devices: dict[int, SimulatedDevice],
    plan: list[tuple[float, int, InputText]],
    started: float,
    stop: asyncio.Event,
) -> None:
    """Send each request at its time, whatever became of those before, and wait for all."""
    running: set[asyncio.Task[None]] = set()
    for at, number, text in plan:
        wait_s = started + at - time.monotonic()
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
        if stop.is_set():
            break
        task = asyncio.create_task(devices[number].send(text, started + at, started))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)


async def close_all(devices: list[SimulatedDevice]) -> None:
    """Deliver every outbox and close the devices."""
    await asyncio.gather(*(device.service.stop(0.0) for device in devices))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as closers:
        await asyncio.gather(
            *(loop.run_in_executor(closers, device.service.shipper.flush, FLUSH_S)
              for device in devices)
        )  # fmt: skip


def write_at_once(file: Path, document: str) -> None:
    """Write a file that is complete as soon as it exists."""
    part = file.with_suffix(".part")
    part.write_text(document, encoding="utf-8")
    part.replace(file)


async def run(spec: dict[str, Any]) -> None:
    """Open the devices, send their requests and write the reports."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    texts = [InputText(*text) for text in spec["texts"]]
    specs = [DeviceSpec(**one) for one in spec["devices"]]
    model = LocalModel(specs[0].mobile_settings())
    devices = open_all(specs, model)
    plan = sorted(
        (request for one in specs
         for request in planned(one, spec["duration_s"], texts, spec["seed"])),
        key=lambda request: request[:2],
    )  # fmt: skip
    print("ready", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        return
    cpu_s = time.process_time()
    await send_all(devices, plan, float(line), stop)
    facts = {"planned": len(plan), "cpu_s": time.process_time() - cpu_s}
    await close_all(list(devices.values()))
    reports = [device.report() for device in devices.values()]
    document = json.dumps(facts | {"devices": reports})
    await asyncio.to_thread(write_at_once, Path(spec["out"]), document)
    with ThreadPoolExecutor(THREADS) as closers:
        for device in devices.values():
            closers.submit(device.service.release, 0.0)
    model.close()
    print("done", flush=True)


def main() -> None:
    """Read the spec and run; an error is one sentence and exit code 2."""
    import uvloop

    allow_descriptors()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        uvloop.run(run(spec))
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
