"""Programs that are run with ``python -m`` and are no commands of ``dimee``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from shared.errors import DimeeError
from shared.signals import raise_on_signals


def run_program(main: Callable[[], object]) -> None:
    """Run a program: signals end it in order; an error is one sentence and exit code 2."""
    raise_on_signals()
    try:
        main()
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)
