"""Relay of one hop as a process: ``python -m testbed.links``."""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import signal
import sys

from shared.errors import DimeeError
from shared.settings import read_settings, refuse_arguments
from shared.terminal import protect_output
from testbed.links.control import ControlServer
from testbed.links.relay import Relay
from testbed.links.schedule import read_schedule
from testbed.links.settings import RelaySettings, parse_addresses

PR_SET_TIMERSLACK = 29


async def run(settings: RelaySettings) -> None:
    """Relay until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listen, targets = map(parse_addresses, (settings.link_listen, settings.link_target))
    (first, target), *further = zip(listen, targets, strict=True)
    relay = Relay(first, target, read_schedule(settings.link), settings.link_seed, further)
    try:
        await relay.start()
        server = await asyncio.start_server(
            ControlServer(relay).serve, settings.host, settings.port
        )
    except OSError as error:
        raise DimeeError(f"the link cannot listen ({error}); choose other ports") from None
    async with server:
        await stop.wait()
        await relay.close()


def precise_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with timers finer than 1 ms; those of epoll are not."""
    if sys.platform == "linux":
        # By default Linux may wake a sleeping thread up to 50 µs late.
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Read the settings and run; an error is one sentence and exit code 2."""
    protect_output()
    try:
        refuse_arguments()
        settings = read_settings(RelaySettings)
        with asyncio.Runner(loop_factory=precise_event_loop) as runner:
            runner.run(run(settings))
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
