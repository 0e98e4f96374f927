"""Names of the ``DIMEE_*`` environment variables, and a warning about others."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from difflib import get_close_matches

log = logging.getLogger(__name__)
PREFIX = "DIMEE_"
SETTINGS = frozenset(
    [
        "AUDIT_ALPHA",
        "AUDIT_SHARE",
        "ALLOWED_HOSTS",
        "BUNDLE",
        "CERTIFICATE",
        "CLIENT_HEADER",
        "CLOUD_URL",
        "CONCURRENCY",
        "DATABASE_URL",
        "DEADLINE_MS",
        "DEVICE",
        "EDGE_LAYERS",
        "EDGE_URL",
        "ESCALATION_BUDGET",
        "ESCALATION_BURST",
        "FAIL_OVER",
        "GRPC_PORT",
        "HEDGE",
        "HOST",
        "LATENCY_PRICE_LAMBDA",
        "LEDGER_RETENTION_DAYS",
        "LEDGER_URL",
        "LINK",
        "LINK_CONTROLS",
        "LINK_LISTEN",
        "LINK_SEED",
        "LINK_TARGET",
        "LOG_LEVEL",
        "MAX_COST_LAMBDA",
        "MAX_QUEUE",
        "MAX_QUEUE_MS",
        "METRICS",
        "MOBILE_LAYERS",
        "MODE",
        "OUTBOX_MAX_MB",
        "POLICY",
        "POLICY_SEED",
        "PORT",
        "PRICE_BOOK",
        "PROBE_INTERVAL_S",
        "PUBLISH_ADDRESS",
        "RATE_BURST",
        "RATE_LIMIT",
        "REPLICA",
        "RESUME",
        "RESUME_CODEC",
        "RETRIES",
        "STATE_DIR",
        "THREADS",
        "TLS_CA",
        "TLS_CERT",
        "TLS_CLIENT_CA",
        "TLS_CLIENT_CERT",
        "TLS_CLIENT_KEY",
        "TLS_KEY",
        "TOKEN",
        "TOKENS",
        "TOKEN_FILE",
        "UNDELIVERED_WARNING_S",
        "UPLINK_MBPS",
        "WEB_APP",
        "WEB_BUNDLE",
        "WEB_CLOUD_URL",
        "WEB_EDGE_URL",
        "WEB_ORIGINS",
        "WORKERS",
    ]
)
"""Fields of all settings classes, which a process of one tier cannot import from the others."""
OTHERS = frozenset(
    {
        "MOBILE_URL",  # dimee status
        "GLUE",  # lab: folder of the GLUE data
        "BASE", "SUITE", "MIRROR", "CA_BUNDLE",  # deploy/no-registry.sh and the Dockerfile
    }
)  # fmt: skip
FAMILIES = ("COMPOSE_", "LOAD_", "CHECK_")
"""Beginnings of the names for docker-compose.yml, Locust and the check of the containers."""
_warned: set[str] = set()


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Return each unknown ``DIMEE_*`` name with the nearest known one, or None if none is near."""
    known = SETTINGS | OTHERS
    found = {}
    for name in sorted(names):
        upper = name.upper()  # settings ignore the case of variables
        field = upper.removeprefix(PREFIX)
        if not upper.startswith(PREFIX) or field in known or field.startswith(FAMILIES):
            continue
        near = get_close_matches(field, sorted(known), 1, 0.7)
        found[name] = PREFIX + near[0] if near else None
    return found


def warn_of_unknown_variables() -> None:
    """Log a warning for each unknown ``DIMEE_*`` variable of the environment, once a process."""
    for name, near in unknown_variables(os.environ).items():
        if name not in _warned:
            _warned.add(name)
            log.warning(
                "%s is not a setting of dimee and has no effect%s",
                name[:100],
                f"; did you mean {near}?" if near else "",
            )
