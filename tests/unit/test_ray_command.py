"""``dimee serve-ray``: what it does when Serve runs already, does not start, or is told to stop.

Ray is replaced by an object that records the calls, so that its failures come when they should;
`tests/e2e/test_ray_cluster.py` runs Ray itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest

from shared.errors import DimeeError, InvalidInput
from shared.ray_serve import cli
from shared.ray_serve.options import RayOptions
from shared.signals import SIGNALS, EndedBySignal, raise_on_signals

HTTP = {"host": "127.0.0.1", "port": 8703}


class Ray(ModuleType):
    """The modules ``ray`` and ``ray.serve``; ``run`` is what ``serve.run`` does."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[str] = []
        self.run: Callable[[], None] = lambda: None
        self.applications: set[str] = set()
        self.proxies: set[str] = set()
        self.serve = SimpleNamespace(
            status=lambda: SimpleNamespace(proxies=self.proxies, applications=self.applications),
            start=lambda http_options: self.calls.append("serve.start"),
            run=self._run,
            delete=lambda name: self.calls.append(f"serve.delete {name}"),
            shutdown=lambda: self.calls.append("serve.shutdown"),
        )

    def init(self, **_: Any) -> None:
        self.calls.append("ray.init")

    def shutdown(self) -> None:
        self.calls.append("ray.shutdown")

    def _run(self, *_: Any, **__: Any) -> None:
        self.calls.append("serve.run")
        self.run()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    module = Ray()
    monkeypatch.setitem(sys.modules, "ray", module)
    app: Any = SimpleNamespace(build=lambda options: "application")
    monkeypatch.setitem(sys.modules, "cloud_server.ray_app", app)
    return module


@pytest.fixture
def signals_raise() -> Iterator[None]:
    """The handlers of the command ``dimee``."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    raise_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def serve_cloud(address: str | None = "auto") -> None:
    cli._serve("cloud", RayOptions(host="127.0.0.1"), HTTP, address)


def test_serve_that_runs_already_is_refused_and_left_alone(ray: Ray) -> None:
    """It would ignore the address: the printed one would be wrong, its own perhaps public."""
    ray.proxies = {"node"}
    with pytest.raises(InvalidInput, match="runs on this cluster already"):
        serve_cloud()
    assert ray.calls == ["ray.init", "ray.shutdown"]


def test_tier_that_does_not_start_is_an_error_in_one_sentence(ray: Ray) -> None:
    def fail() -> None:
        raise RuntimeError("Deploying application cloud failed:\n  no bundle")

    ray.run = fail
    with pytest.raises(DimeeError, match=r"cloud does not start; .*: Deploying .*: no bundle"):
        serve_cloud()
    assert ray.calls[3:] == ["serve.delete cloud", "serve.shutdown", "ray.shutdown"]


@pytest.mark.usefixtures("signals_raise")
def test_signal_ends_a_start_that_would_wait_for_ever(ray: Ray) -> None:
    """``serve.run`` returns when the replicas run: with too few CPUs, never."""

    def wait() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
        raise AssertionError("the signal was ignored")

    ray.run = wait
    with pytest.raises(EndedBySignal):
        serve_cloud()
    assert ray.calls[3:] == ["serve.delete cloud", "serve.shutdown", "ray.shutdown"]


@pytest.mark.usefixtures("signals_raise")
@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside another application"])
def test_signal_stops_the_tier_and_no_other_application(
    ray: Ray, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(text: str) -> None:
        if "Ctrl-C stops it" in text:
            ray.applications = {"other"} if other else set()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(click, "echo", interrupt)
    serve_cloud()
    left = [] if other else ["serve.shutdown"]
    assert ray.calls[3:] == ["serve.delete cloud", *left, "ray.shutdown"]
