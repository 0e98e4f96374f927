"""Firefox and WebKitGTK without a window, driven by WebDriver BiDi and WebDriver."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket

from tests.support.paths import free_ports

START_S = 60.0
SCRIPT_S = 60.0
MINI_BROWSERS = "*/webkit2gtk-4.*/MiniBrowser"

Open = Callable[[str], None]
Call = Callable[..., Any]
Engine = Callable[[Path], AbstractContextManager[tuple[Open, Call]]]
"""Starts a browser, and may keep its profile in a folder; yields what opens a page there and what
calls an async function of JavaScript in it."""


@contextmanager
def firefox(folder: Path) -> Iterator[tuple[Open, Call]]:
    """Start Firefox with WebDriver BiDi; skip the test where there is none."""
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if found is None:
        pytest.skip("no Firefox; install Debian's package firefox-esr to run this test")
    (port,) = free_ports(1)
    options = ["--headless", "--no-remote", "--profile", str(folder)]
    options += ["--remote-debugging-port", str(port)]
    with _process([found, *options, "about:blank"]), ExitStack() as stack:
        address = f"ws://127.0.0.1:{port}/session"
        connect = partial(
            websocket.create_connection, address, timeout=SCRIPT_S, suppress_origin=True
        )
        socket = _retried(connect)
        stack.callback(socket.close)
        numbers = itertools.count(1)

        def command(method: str, **parameters: Any) -> dict[str, Any]:
            number = next(numbers)
            socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(socket.recv())).get("id") != number:
                pass  # an event
            assert answer["type"] == "success", answer
            return dict(answer["result"])

        command("session.new", capabilities={})
        page = command("browsingContext.getTree")["contexts"][0]["context"]

        def open_page(url: str) -> None:
            command("browsingContext.navigate", context=page, url=url, wait="complete")

        def call(function: str, *arguments: Any) -> Any:
            answer = command(
                "script.callFunction",
                functionDeclaration=_with_json(function),
                arguments=[{"type": "string", "value": json.dumps(arguments)}],
                target={"context": page},
                awaitPromise=True,
            )
            assert answer["type"] == "success", answer
            return json.loads(answer["result"]["value"])

        yield open_page, call


@contextmanager
def webkit(_folder: Path) -> Iterator[tuple[Open, Call]]:
    """Start WebKitGTK, Safari's engine, with WebDriver; skip the test where there is none."""
    driver, display = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    browser = next(Path("/usr/lib").glob(MINI_BROWSERS), None)
    if driver is None or display is None or browser is None:
        pytest.skip("no WebKitWebDriver; install Debian's packages webkit2gtk-driver and xvfb")
    (port,) = free_ports(1)
    read, write = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, read)
        xvfb = [display, "-displayfd", str(write), "-nolisten", "tcp"]
        stack.enter_context(_process(xvfb, pass_fds=[write]))
        os.close(write)
        shown = os.environ | {"DISPLAY": f":{os.read(read, 16).decode().strip()}"}
        stack.enter_context(_process([driver, "-p", str(port)], env=shown))
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SCRIPT_S + 10)
        stack.enter_context(http)

        def command(path: str, **body: Any) -> Any:
            answer = http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()["value"]

        options = {"binary": str(browser), "args": ["--automation"]}
        always = {"timeouts": {"script": int(1e3 * SCRIPT_S)}, "webkitgtk:browserOptions": options}
        _retried(lambda: http.get("/status"))
        made = command("/session", capabilities={"alwaysMatch": always})
        session = f"/session/{made['sessionId']}"
        stack.callback(http.delete, session)

        def open_page(url: str) -> None:
            command(f"{session}/url", url=url)

        def call(function: str, *arguments: Any) -> Any:
            script = "const [json, done] = arguments;\n"
            script += f"({_with_json(function)})(json).then(done, (error) => done([`${{error}}`]));"
            args = [json.dumps(arguments)]
            value = command(f"{session}/execute/async", script=script, args=args)
            assert isinstance(value, str), value
            return json.loads(value)

        yield open_page, call


def _with_json(function: str) -> str:
    """Return a function of JSON with a list of arguments, whose value is JSON too."""
    return f"async (json) => JSON.stringify((await ({function})(...JSON.parse(json))) ?? null)"


@contextmanager
def _process(command: list[str], **options: Any) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, **options)
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_S)


def _retried(start: Callable[[], Any]) -> Any:
    until = time.monotonic() + START_S
    while True:
        try:
            return start()
        except (OSError, httpx.TransportError):
            assert time.monotonic() < until, "the browser does not start"
            time.sleep(0.1)
