"""Entry point of the command ``dimee``.

It imports next to nothing itself: an import in the middle of which Ctrl-C is pressed would end in a
stack trace.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Run the command ``dimee``. Ctrl-C, SIGTERM and SIGHUP end it in order from here on."""
    try:
        from shared.signals import exit_on_signals, raise_on_signals

        raise_on_signals()
        with exit_on_signals():
            # by name, because no module of this package may depend on the mobile client
            cli = importlib.import_module("mobile_client.cli.main")
        cli.main()
    except KeyboardInterrupt:  # Ctrl-C before raise_on_signals
        sys.exit(130)


if __name__ == "__main__":
    main()
