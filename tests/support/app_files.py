"""Files that the service worker lists; ``python -m tests.support.app_files`` writes the list."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mobile_client.web import STATIC

SERVICE_WORKER = STATIC / "service-worker.js"
KINDS = frozenset({".css", ".gz", ".html", ".js", ".mjs", ".png", ".svg", ".wasm", ".webmanifest"})
"""Kinds of files that the app needs without a network."""
DIGITS = 16
_LIST = re.compile(r"const FILES = \{(.*?)\};", re.DOTALL)


def app_files() -> dict[str, str]:
    """Return the hash of each file that the app needs, by its path; not the service worker's."""
    return {
        path.relative_to(STATIC).as_posix(): digest(path)
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in KINDS and path != SERVICE_WORKER
    }


def listed_files() -> dict[str, str]:
    """Return the files that the service worker lists."""
    found = _LIST.search(SERVICE_WORKER.read_text())
    assert found is not None
    return dict(re.findall(r'"([^"]+)": "([0-9a-f]+)"', found[1]))


def digest(path: Path) -> str:
    """Return the first digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]


def write_list() -> None:
    """Write the list into the service worker."""
    lines = "".join(f'  "{name}": "{hashed}",\n' for name, hashed in app_files().items())
    text = SERVICE_WORKER.read_text()
    SERVICE_WORKER.write_text(_LIST.sub(lambda _: f"const FILES = {{\n{lines}}};", text))


if __name__ == "__main__":
    write_list()
