"""``python -m testbed.links`` is one hop's link until it is stopped."""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import signal
import sys

from shared.errors import DimeeError
from shared.settings import read_settings
from testbed.links.control import Control
from testbed.links.relay import Relay
from testbed.links.schedule import read_schedule
from testbed.links.settings import RelaySettings, address

PR_SET_TIMERSLACK = 29


async def run(settings: RelaySettings) -> None:
    """Relay until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    relay = Relay(
        address(settings.link_listen),
        address(settings.link_target),
        read_schedule(settings.link),
        settings.link_seed,
    )
    try:
        await relay.start()
        control = await asyncio.start_server(Control(relay).serve, settings.host, settings.port)
    except OSError as error:
        raise DimeeError(f"the link cannot listen ({error}); choose other ports") from None
    async with control:
        await stop.wait()
        await relay.close()


def fine_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are finer than a millisecond: epoll's and poll's are not."""
    if sys.platform == "linux":
        # a sleeping thread is woken up to 50 µs late unless it says that it minds
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Read the settings and run; a wrong one is one sentence and exit code 2."""
    try:
        settings = read_settings(RelaySettings)
        with asyncio.Runner(loop_factory=fine_loop) as runner:
            runner.run(run(settings))
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
