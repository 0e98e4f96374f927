"""Fleets of ``dimee load --devices``: the mix file, fairness, and a link for each device."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from shared.domain import InputText
from shared.errors import DimeeError, InvalidInput, TooLarge
from shared.settings import default_bundle
from testbed.links.device_relay import (
    DeviceRelay,
    RelayPlan,
    device_address,
    probe_address,
)
from testbed.links.timer_selector import TimerSelector
from testbed.load.cli import load
from testbed.load.fleet import command
from testbed.load.fleet.device import SUMS, DeviceSpec
from testbed.load.fleet.fairness import fairness, jain
from testbed.load.fleet.mix import apportion, read_mix
from testbed.load.fleet.run import FleetOptions, check, device_specs
from testbed.load.fleet.worker import planned
from tests.support.paths import free_ports

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="devices are addresses in 127/8")

CLASS = {"name": "4g", "share": 1.0, "link": "4g", "requests_per_s": 0.1}


def mix_file(folder: Path, *classes: dict[str, Any]) -> Path:
    file = folder / "mix.json"
    file.write_text(json.dumps({"classes": list(classes)}))
    return file


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        ([CLASS | {"share": 0.5}], "the shares sum to 0.5; they must sum to 1"),
        ([CLASS | {"share": "1"}], r"classes.0.share: .*number"),
        ([CLASS | {"colour": "red"}], "classes.0.colour"),
        ([CLASS | {"link": "5k"}], "class 4g: link: '5k' is not a link"),
        ([CLASS | {"link": "stall"}], "class 4g: the link is an outage"),
        ([CLASS | {"link": "4g,up=missing.trace"}], "class 4g: .*missing.trace"),
        ([CLASS | {"requests_per_s": 0}], "classes.0.requests_per_s"),
        ([CLASS | {"escalation_budget": -1}], "classes.0.escalation_budget"),
        ([CLASS | {"share": 0.5}, CLASS | {"share": 0.5}], "two classes have the same name"),
        ([], "classes"),
    ],
)
def test_wrong_mix_is_refused_with_its_field(
    tmp_path: Path, classes: list[dict[str, Any]], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_mix(mix_file(tmp_path, *classes))


def test_missing_mix_shows_an_example(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"give a file such as \{"):
        read_mix(tmp_path / "no.json")


def test_devices_are_apportioned_by_largest_remainders(tmp_path: Path) -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    mix = read_mix(
        mix_file(tmp_path, *(CLASS | {"name": n, "share": s} for n, s in shares.items()))
    )
    assert apportion(mix, 1000) == [500, 300, 200]
    assert apportion(mix, 7) == [4, 2, 1]
    with pytest.raises(InvalidInput, match="class c has no device among 2"):
        apportion(mix, 2)


def options(
    tmp_path: Path, devices: int = 10, duration_s: float = 10.0, **one: Any
) -> FleetOptions:
    file = mix_file(tmp_path, CLASS | one)
    return FleetOptions(devices, read_mix(file), file, duration_s, 1, 2, {"edge": 2, "cloud": 1},
                        default_bundle())  # fmt: skip


def test_too_many_requests_and_unknown_policies_are_refused(tmp_path: Path) -> None:
    assert check(options(tmp_path)) == [10]
    with pytest.raises(TooLarge, match="means 3,600,000 requests"):
        check(options(tmp_path, 1000, 3600.0, requests_per_s=1.0))
    with pytest.raises(InvalidInput, match="'best' is not known"):
        check(options(tmp_path, policy="best"))


def test_fleet_beyond_the_limits_of_the_machine_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = [2_000]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, limit[0]))
    assert check(options(tmp_path, 300)) == [300]  # 150 in each of two processes
    with pytest.raises(InvalidInput, match=r"of 200 devices needs 2,600 open files.* allows 2,000"):
        check(options(tmp_path, 400))
    limit[0] = resource.RLIM_INFINITY
    assert check(options(tmp_path, 400)) == [400]
    free = SimpleNamespace(available=400_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert check(options(tmp_path, 300)) == [300]
    with pytest.raises(InvalidInput, match=r"400 devices need 0.4 GB of memory, and 0.4 are free"):
        check(options(tmp_path, 400))


def test_run_without_a_request_says_so_and_has_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = dict.fromkeys(("attempts", *SUMS), 0)
    device = {"device": 0, "class": "4g", "undelivered": 0, "samples": [], **sums}
    ledger = {"consistent": True, "error": None, "requests": 40, "total_findings": 0}
    result = {
        "devices": [device], "links": [], "ledger": ledger, "warm_up_requests": 40, "planned": 0,
        "ledger_totals": {name: {"devices": 0, "ledger": 0} for name in SUMS},
        "sending_cpu_s": 0.0, "opened_s": 0.1, "processes": 1, "stopped": None,
        "replicas": {"edge": 1, "cloud": 1},
    }  # fmt: skip
    monkeypatch.setattr(command, "run_fleet", lambda *_: result)
    file, out = mix_file(tmp_path, CLASS), tmp_path / "o"
    arguments = ["--devices", "1", "--mix", str(file), "--out", str(out), "--duration", "1"]
    found = CliRunner().invoke(load, arguments)
    assert isinstance(found.exception, DimeeError)
    assert "no request fell into the 1 s; raise --duration" in str(found.exception)
    assert json.loads((tmp_path / "o.json").read_text())["requests"] == 0
    assert "Jain" in (tmp_path / "o.html").read_text()


def test_options_that_a_fleet_does_not_use_are_refused(tmp_path: Path) -> None:
    file = str(mix_file(tmp_path, CLASS))
    arguments = ["--devices", "3", "--mix", file, "--out", str(tmp_path / "o"), "--rate", "5"]
    found = CliRunner().invoke(load, arguments)
    assert isinstance(found.exception, InvalidInput)
    assert "--devices does not use it; leave out --rate" in str(found.exception)
    found = CliRunner().invoke(load, ["--devices", "3", "--out", str(tmp_path / "o")])
    assert "--mix FILE" in str(found.exception)


def test_each_device_has_its_own_address_outbox_seed_and_arrivals(tmp_path: Path) -> None:
    fleet = options(tmp_path, 3, escalation_budget=0.2, deadline_ms=900.0)
    specs = device_specs(fleet, [3], {"edge_url": "http://127.0.0.1:1"}, tmp_path)
    for name in ("state_dir", "policy_seed"):
        assert len({spec.settings[name] for spec in specs}) == 3
    assert len({spec.address for spec in specs}) == 3
    settings = specs[1].mobile_settings()
    assert (settings.escalation_budget, settings.deadline_ms) == (0.2, 900.0)
    texts = [InputText(f"text {number}") for number in range(9)]
    plans = [planned(spec, 1000.0, texts, seed=5) for spec in specs]
    assert plans == [planned(spec, 1000.0, texts, seed=5) for spec in specs]
    assert plans[0] != planned(specs[0], 1000.0, texts, seed=6)
    times = [[at for at, _, _ in plan] for plan in plans]
    assert times[0] != times[1] != times[2]
    assert all(60 < len(plan) < 140 for plan in times), "a Poisson process of 0.1 a second"


def test_jain_index_of_known_allocations() -> None:
    assert jain([2.0] * 7) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([1.0, 2.0, 3.0]) == pytest.approx(36 / (3 * 14))
    assert jain([]) is None
    assert jain([0.0, 0.0]) is None


def test_chance_alone_explains_equal_devices_and_not_a_slow_one() -> None:
    rng = np.random.default_rng(3)
    devices = np.repeat(np.arange(100), 5)
    classes = np.repeat([0, 1], 250)
    values = rng.exponential(1.0, 500) * (1 + 9 * classes)
    fair = fairness(values, devices, classes, seed=1)
    assert fair["jain"] is not None
    assert fair["by_chance"] is not None
    assert fair["jain"] == pytest.approx(fair["by_chance"], abs=0.05)
    values[devices == 7] *= 200
    unfair = fairness(values, devices, classes, seed=1)
    assert unfair["jain"] is not None
    assert unfair["by_chance"] is not None
    assert unfair["jain"] < unfair["by_chance"] / 2
    assert fairness(values, devices, classes, seed=1) == unfair
    assert fairness(np.array([]), np.array([], int), np.array([], int), 1)["jain"] is None


PLAN = RelayPlan(
    folder=".", links={"slow": "3g,loss=0.1", "fast": "lan"}, devices=["slow", "slow", "fast"],
    servers=[],
)  # fmt: skip


def test_a_device_has_one_link_for_all_its_connections_and_shares_it_with_no_other() -> None:
    async def links() -> None:
        relay = DeviceRelay(PLAN)
        first, second, third = (relay.link_of(device_address(number)) for number in range(3))
        assert first is not None
        assert second is not None
        assert third is not None
        assert first is relay.link_of(device_address(0))
        assert first.directions[0] is not second.directions[0]
        assert [one.directions[0].mbps for one in (first, second, third)] == [1.0, 1.0, 1000.0]
        # a long transfer of one device delays its own next byte, and not that of another
        up, now = first.directions[0], 1000.0
        up.delivery_time(now, 125_000)
        assert up.delivery_time(now, 1) > now + 1.0
        assert second.directions[0].delivery_time(now, 1) < now + 5.0
        probe = relay.link_of(probe_address(0))
        assert probe is not None
        probe.directions[0].delivery_time(now, 10**6)
        assert probe.directions[0].retransmissions == 0, "a probe has no loss"
        assert relay.link_of("127.0.0.1") is None
        assert relay.link_of(device_address(3)) is None

    asyncio.run(links())


@linux_only
def test_relay_forwards_devices_and_closes_strangers() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async def ask(port: int, source: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            writer.write(b"hello")
            return await reader.read(100)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def exchange() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port, target = free_ports(1)[0], int(server.sockets[0].getsockname()[1])
        relay = DeviceRelay(PLAN.model_copy(update={"servers": [(port, target)]}))
        await relay.start()
        assert await ask(port, device_address(2)) == b"hello"
        assert await ask(port, "127.0.0.1") == b""

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimerSelector())) as runner:
        runner.run(asyncio.wait_for(exchange(), 30))


@linux_only
def test_timer_selector_serves_timers_and_sockets() -> None:
    async def both() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        loop.call_later(0.02, order.append, "second")
        loop.call_later(0.0004, order.append, "first")
        loop.call_later(0.03, ours.send, b"x")
        await loop.sock_recv(theirs, 1)
        ours.close()
        theirs.close()
        return order

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimerSelector())) as runner:
        assert runner.run(asyncio.wait_for(both(), 30)) == ["first", "second"]


def test_spec_survives_the_way_to_a_process(tmp_path: Path) -> None:
    (spec,) = device_specs(options(tmp_path, 1), [1], {}, tmp_path)
    assert DeviceSpec(**json.loads(json.dumps(asdict(spec)))) == spec
