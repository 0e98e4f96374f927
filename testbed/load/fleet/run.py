"""Run of a fleet: servers, the relay of the links, processes of devices, and the ledger's check."""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from mobile_client.client import MobileClient, load_settings
from mobile_client.options import RequestOptions
from shared.bundle.loading import load_bundle
from shared.credentials import Credentials
from shared.domain import InputText
from shared.errors import InvalidInput, TooLarge
from shared.labels import counted
from shared.ledger.client import LedgerClient
from shared.ledger.disk_reserve import RESERVE_BYTES
from shared.ledger.reports import Summary
from shared.policies import PolicyFacts, make_known_policy
from shared.signals import EndedBySignal
from testbed.links.device_relay import MAX_DEVICES, device_address
from testbed.links.probe import describe
from testbed.load.arrivals import MAX_REQUESTS
from testbed.load.fleet.device import SUMS, DeviceSpec
from testbed.load.fleet.links import RelayProcess, start_relay, wait_for_line
from testbed.load.fleet.mix import Mix, apportion
from testbed.load.ledger_check import verify_ledger
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import free_ports
from testbed.processes.processes import Role, Testbed
from testbed.processes.replicas import replica_names, replica_roles
from testbed.processes.temporary import temporary_folder
from testbed.up import MODULES

DEVICE_DISK_BYTES = RESERVE_BYTES + 2**20
"""Disk of a device: its outbox with the reserve (`shared.ledger.disk_reserve`)."""
DEVICE_MEMORY_BYTES, PROCESS_MEMORY_BYTES = 400_000, 125_000_000
"""Memory of a device, and of a process with the bundle that its devices share."""
DESCRIPTORS, PROCESS_DESCRIPTORS = 12, 200
"""Open files of a device: six of its outbox, and its connections; and others of a process."""
OPEN_S, END_S = 300.0, 180.0
"""Time for a process to open its devices, and for it to end after the last request."""
START_AFTER_S = 1.0
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of a run; ``replicas`` are the number of edges and clouds."""

    devices: int
    mix: Mix
    mix_file: Path
    duration_s: float
    seed: int
    processes: int
    replicas: dict[str, int]
    bundle: Path
    database_url: str | None = None


def check(options: FleetOptions) -> list[int]:
    """Return the number of devices of each class; raises `DimeeError` for a run that cannot be."""
    counts = apportion(options.mix, options.devices)
    expected = options.duration_s * sum(
        one.requests_per_s * count for one, count in zip(options.mix.classes, counts, strict=True)
    )
    if expected > MAX_REQUESTS:
        raise TooLarge(
            f"load: the mix means {expected:,.0f} requests, at most {MAX_REQUESTS:,} are allowed; "
            "choose a lower requests_per_s, fewer --devices or a shorter --duration",
            limit=MAX_REQUESTS,
        )
    if options.devices > MAX_DEVICES:
        raise TooLarge(f"--devices: at most {MAX_DEVICES:,}", limit=MAX_DEVICES)
    _check_descriptors(options)
    _check_memory(options)
    bundle = load_bundle(options.bundle)
    facts = PolicyFacts.of(bundle, load_settings(bundle=options.bundle).mobile_layers)
    for one in options.mix.classes:
        make_known_policy(one.policy or bundle.default_policy, facts)
    return counts


@contextmanager
def start_servers(options: FleetOptions, folder: Path) -> Iterator[Testbed]:
    """Start the ledger and the replicas of edge and cloud, and stop them at the end."""
    names = {tier: replica_names(tier, count) for tier, count in options.replicas.items()}
    every = ["ledger", *(name for of_tier in names.values() for name in of_tier)]
    ports = dict(zip(every, free_ports(len(every)), strict=True))
    common = {
        "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ports['ledger']}",
        "DIMEE_BUNDLE": str(options.bundle.absolute()),
    }
    if options.database_url is not None:
        common["DIMEE_DATABASE_URL"] = options.database_url
    roles = [Role("ledger", MODULES["ledger"], ports["ledger"])]
    for tier, of_tier in names.items():
        own = {name: ports[name] for name in of_tier}
        roles += replica_roles(tier, MODULES[tier], own, folder, {})
    with Testbed(roles, folder, common) as testbed:
        testbed.start_all()
        yield testbed


def device_specs(
    options: FleetOptions, counts: Sequence[int], urls: dict[str, str], folder: Path
) -> list[DeviceSpec]:
    """Return all devices, class by class; ``urls`` has the settings that name the servers."""
    names = [i for i, count in enumerate(counts) for _ in range(count)]
    specs = []
    for number, index in enumerate(names):
        one = options.mix.classes[index]
        settings = urls | {
            "bundle": str(options.bundle.absolute()),
            "state_dir": str(folder / f"device-{number:06d}"),
            "policy": one.policy,
            "policy_seed": options.seed + number,
            "deadline_ms": one.deadline_ms,
            "escalation_budget": one.escalation_budget,
            "escalation_burst": one.escalation_burst,
        }
        specs.append(
            DeviceSpec(number, one.name, device_address(number), settings, one.requests_per_s)
        )
    return specs


class WorkerProcess:
    """One process of devices."""

    def __init__(self, spec: Path, log: Path) -> None:
        self.log, self.out = log, spec.with_suffix(".out")
        with log.open("wb") as errors:
            self.process: subprocess.Popen[str] = start_child(
                ["-m", "testbed.load.fleet.worker", str(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait_for(self, line: str, timeout_s: float) -> None:
        """Wait for a line of the process; raises `DimeeError`."""
        wait_for_line(self.process, line, timeout_s, "a process of devices", self.log)

    def start(self, at: float) -> None:
        """Let it send its first request at the time ``at`` of `time.monotonic`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{at}\n")
        self.process.stdin.flush()


def run_fleet(
    options: FleetOptions, counts: Sequence[int], texts: Sequence[InputText]
) -> dict[str, Any]:
    """Run the fleet; return the devices' reports and the facts of the run."""
    names = [one.name for one, n in zip(options.mix.classes, counts, strict=True) for _ in range(n)]
    with temporary_folder("fleet") as folder, ExitStack() as stack:
        _check_disk(folder, options.devices)
        click.echo("starting the servers …")
        testbed = stack.enter_context(start_servers(options, folder))
        servers = [name for name in testbed.roles if name != "ledger"]
        relay = stack.enter_context(
            start_relay(
                options.mix.classes,
                names,
                [testbed.roles[name].port for name in servers],
                options.mix_file.parent,
                options.seed,
                folder / "relay.log",
            )
        )
        links = relay.measure(options.mix.classes, options.mix_file.parent)
        for link in links:
            click.echo(f"  {describe(link)}")
        ledger_url = testbed.roles["ledger"].url
        warmed_up = _warm_up(testbed, options, texts, folder)
        ledger = LedgerClient(ledger_url, credentials=Credentials())
        verify_ledger(ledger_url, warmed_up)
        before = ledger.summary()
        urls = _urls(servers, relay, ledger_url)
        specs = device_specs(options, counts, urls, folder)
        workers, opened_s = _open(stack, options, specs, texts, folder)
        started = time.monotonic() + START_AFTER_S
        click.echo(f"sending for {options.duration_s:g} s …")
        for worker in workers:
            worker.start(started)
        stopped = _wait(workers, started + options.duration_s)
        results = [json.loads(worker.out.read_text(encoding="utf-8")) for worker in workers]
        devices = [device for result in results for device in result["devices"]]
        answered = sum(
            sample["ending"] == "answered" for device in devices for sample in device["samples"]
        )
        check = verify_ledger(ledger_url, answered + warmed_up)
        totals = _compare(devices, before, ledger.summary())
        ledger.close()
    return {
        "devices": devices,
        "links": links,
        "ledger": check,
        "ledger_totals": totals,
        "warm_up_requests": warmed_up,
        "planned": sum(result["planned"] for result in results),
        "sending_cpu_s": sum(result["cpu_s"] for result in results),
        "opened_s": opened_s,
        "processes": len(workers),
        "replicas": options.replicas,
        "stopped": stopped,
    }


def _check_descriptors(options: FleetOptions) -> None:
    """Raise `InvalidInput` if a process of devices may not open as many files as it needs."""
    in_one = math.ceil(options.devices / options.processes)
    needed = in_one * DESCRIPTORS + PROCESS_DESCRIPTORS
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and needed > most:
        raise InvalidInput(
            f"--devices: a process of {counted(in_one, 'device')} needs {needed:,} open files, and "
            f"this system allows {most:,}; give more --processes or fewer --devices, or raise "
            "ulimit -Hn"
        )


def _check_memory(options: FleetOptions) -> None:
    """Raise `InvalidInput` if the devices need more memory than is free."""
    processes = min(options.processes, options.devices)
    needed = options.devices * DEVICE_MEMORY_BYTES + processes * PROCESS_MEMORY_BYTES
    free = psutil.virtual_memory().available
    if needed > free:
        raise InvalidInput(
            f"--devices: {counted(options.devices, 'device')} need {needed / 2**30:.1f} GB of "
            f"memory, and {free / 2**30:.1f} are free; give fewer"
        )


def _check_disk(folder: Path, devices: int) -> None:
    needed, free = devices * DEVICE_DISK_BYTES + 2**30, shutil.disk_usage(folder).free
    if free < needed:
        raise InvalidInput(
            f"--devices: the outboxes of {devices:,} devices need {needed / 2**30:.1f} GB of disk "
            f"in {folder.parent}, which has {free / 2**30:.1f}; free some, or set TMPDIR"
        )


def _urls(servers: Sequence[str], relay: RelayProcess, ledger_url: str) -> dict[str, str]:
    ports = dict(zip(servers, relay.ports, strict=True))
    urls = {"ledger_url": ledger_url}
    for tier in ("edge", "cloud"):
        own = [port for name, port in ports.items() if name.startswith(tier)]
        urls[f"{tier}_url"] = ",".join(f"http://127.0.0.1:{port}" for port in own)
    return urls


def _warm_up(
    testbed: Testbed, options: FleetOptions, texts: Sequence[InputText], folder: Path
) -> int:
    """Send some texts to each replica, without a link; return their number."""
    sent = 0
    for name, role in testbed.roles.items():
        tier = name.partition("-")[0]
        if tier == "ledger":
            continue
        settings: dict[str, Any] = {
            "bundle": options.bundle,
            "state_dir": folder / f"warm-up-{name}",
            "ledger_url": testbed.roles["ledger"].url,
            f"{tier}_url": role.url,
        }
        with MobileClient(**settings) as mobile:
            for text in texts[:WARM_UP]:
                chosen = RequestOptions(policy=tier, deadline_ms=20_000)
                mobile.classify(text.text, text.pair, chosen)
                sent += 1
    return sent


def _open(
    stack: ExitStack,
    options: FleetOptions,
    specs: Sequence[DeviceSpec],
    texts: Sequence[InputText],
    folder: Path,
) -> tuple[list[WorkerProcess], float]:
    """Start the processes of devices, and wait until all devices are open."""
    count = min(options.processes, len(specs))
    click.echo(f"opening {counted(len(specs), 'device')}, number of processes: {count} …")
    began, workers = time.monotonic(), []
    for number in range(count):
        file = folder / f"worker-{number}.json"
        spec = {
            "devices": [asdict(one) for one in specs[number::count]],
            "duration_s": options.duration_s,
            "seed": options.seed,
            "texts": [[text.text, text.pair, text.label] for text in texts],
            "out": str(file.with_suffix(".out")),
        }
        file.write_text(json.dumps(spec), encoding="utf-8")
        workers.append(WorkerProcess(file, folder / f"worker-{number}.log"))
        stack.callback(_end, workers[-1].process)
    for worker in workers:
        worker.wait_for("ready", OPEN_S)
    return workers, time.monotonic() - began


def _end(process: subprocess.Popen[str]) -> None:
    stop_all([process])
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _wait(workers: Sequence[WorkerProcess], ends: float) -> str | None:
    """Wait for the reports; return the name of the signal that ended the run early, or None."""
    stopped = None
    try:
        for worker in workers:
            worker.wait_for("done", max(0.0, ends - time.monotonic()) + END_S)
        return None
    except (KeyboardInterrupt, EndedBySignal) as error:
        stopped = "SIGINT" if isinstance(error, KeyboardInterrupt) else error.signal.name
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        if not worker.out.exists():
            worker.wait_for("done", END_S)
    return stopped


def _compare(
    devices: Sequence[dict[str, Any]], before: Summary, after: Summary
) -> dict[str, dict[str, float]]:
    """Return each sum over the devices beside that of the ledger, without the warm-up."""
    return {
        name: {
            "devices": sum(device[name] for device in devices),
            "ledger": getattr(after, name) - getattr(before, name),
        }
        for name in SUMS
    }
