"""``python -m shared.relay.set 3g`` changes the link whose control is on this machine's loopback.

For a relay that runs in a container, from inside of it; ``dimee link set`` does it from outside.
"""

from __future__ import annotations

import os
import sys

from shared.errors import DimeeError
from shared.relay.client import LinkControl


def main() -> None:
    """Change the link and say what it is now; a wrong word is one sentence and exit code 2."""
    if len(sys.argv) != 2:
        print("dimee: give the link as one word: python -m shared.relay.set 4g", file=sys.stderr)
        sys.exit(2)
    port = os.environ.get("DIMEE_PORT", "8720")
    try:
        report = LinkControl("of this container", f"http://127.0.0.1:{port}").change(sys.argv[1])
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)
    print(report["words"])


if __name__ == "__main__":
    main()
