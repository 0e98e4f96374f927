"""Runs a service's application with uvicorn."""

from __future__ import annotations

import gc
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from shared.connections import GRACEFUL_STOP_S, SERVER_IDLE_S
from shared.errors import DimeeError
from shared.serving.auth import refuse_unprotected_service
from shared.serving.connection import ConnectionLimits, connection_factory
from shared.serving.tls import tls_options
from shared.serving.whole_requests import WholeRequests
from shared.settings import ServiceSettings, is_loopback, read_settings, refuse_arguments
from shared.terminal import protect_output

log = logging.getLogger(__name__)
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

SWITCH_INTERVAL_S = 0.00005
"""Interval in seconds at which Python threads pass on the interpreter lock. The event loop takes
the lock after every read and write; with a busy thread and 0.5 ms, it answered only 1,500 requests
a second."""
MAX_OPEN_FILES = 65_536
SERVER_OPTIONS: dict[str, Any] = {
    "access_log": False,
    "timeout_keep_alive": SERVER_IDLE_S,
    "timeout_graceful_shutdown": GRACEFUL_STOP_S,
    # A client could send any address in a proxy header; see DIMEE_CLIENT_HEADER.
    "proxy_headers": False,
    # The output escapes control characters, also those of colours.
    "use_colors": False,
    # no service has a websocket; `HttpConnection` ignores offers of other protocols
    "ws": "none",
}
"""Options of `uvicorn.Config` that every service uses."""
STARTUP_FAILURE = 3
"""Exit code of a service that cannot listen, the same as uvicorn's."""


class ServerConfig(uvicorn.Config):
    """Configuration of uvicorn in which every connection is an `HttpConnection`.

    ``limits`` are the connections' limits; ``options`` are `uvicorn.Config`'s.
    """

    def __init__(
        self, app: ASGIApp, limits: ConnectionLimits | None = None, **options: Any
    ) -> None:
        super().__init__(WholeRequests(app), **SERVER_OPTIONS | options)
        self._connection_limits = limits or ConnectionLimits()

    def load(self) -> None:
        """Load the configuration, and put `HttpConnection` before its HTTP protocol."""
        super().load()
        connect = connection_factory(self.http_protocol_class, self._connection_limits)
        self.http_protocol_class = connect  # type: ignore[assignment]


def run_server(create_app: Callable[[SettingsT], FastAPI], settings: type[SettingsT]) -> None:
    """Serve until SIGTERM or SIGINT.

    A wrong setting or bundle ends the process with one sentence on stderr and exit code 2.
    """
    protect_output()
    try:
        refuse_arguments()
        loaded = read_settings(settings)
        configure_logging(loaded.log_level)
        refuse_unprotected_service(loaded)
        tls = tls_options(loaded)
        app = create_app(loaded)
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)
    if loaded.tokens is not None and not tls and not is_loopback(loaded.host):
        log.warning("tokens and texts cross the network unencrypted; set DIMEE_TLS_CERT")
    tune_process()
    server = uvicorn.Server(
        ServerConfig(app, host=loaded.host, port=loaded.port, log_level=loaded.log_level, **tls)
    )
    app.state.server = server
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def configure_logging(level: str) -> None:
    """Log messages of at least ``level`` on stderr."""
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s %(message)s")
    for library in ("httpx", "httpcore"):  # they log whole addresses and headers
        logging.getLogger(library).setLevel(logging.WARNING)


def tune_process() -> None:
    """Prepare this process to serve; call it when the application is loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    raise_open_files_limit()
    # Exclude loaded objects from garbage collection: a full collection would pause all requests.
    gc.collect()
    gc.freeze()


def is_stopping(app: FastAPI) -> bool:
    """Return whether the server of ``app`` has been told to stop.

    The server waits for open responses. One that lasts until its reader leaves asks this often, and
    then ends.
    """
    server = getattr(app.state, "server", None)
    return server is not None and server.should_exit


def raise_open_files_limit() -> None:
    """Raise this process's limit of open files to what the system allows, at most 65,536.

    Each connection is an open file.
    """
    current, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_OPEN_FILES if maximum == resource.RLIM_INFINITY else min(maximum, MAX_OPEN_FILES)
    if current != resource.RLIM_INFINITY and current < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, maximum))
