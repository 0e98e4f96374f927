"""Verification of the ledger after a run."""

from __future__ import annotations

from typing import Any

from shared.credentials import Credentials
from shared.errors import DimeeError
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient

VERIFY_S = 30.0


def verify_ledger(
    url: str, requests: int, wait_s: float = VERIFY_S, credentials: Credentials | None = None
) -> dict[str, Any]:
    """Wait until the ledger has ``requests`` consistent requests; return the result as JSON.

    ``consistent`` is None without a URL, and false with an ``error`` if the ledger does not answer.
    """
    if not url:
        return {"consistent": None, "error": "not verified: give --ledger-url"}
    client = LedgerClient(url, credentials=credentials or Credentials())
    try:
        report = wait_for_consistent(client, wait_s, requests)
    except DimeeError as error:
        return {"consistent": False, "error": error.message}
    finally:
        client.close()
    return {
        "consistent": report.consistent,
        "error": None,
        "requests": report.requests,
        "caller_rows": report.caller_rows,
        "total_findings": report.total_findings,
        "findings": [finding.model_dump(mode="json") for finding in report.findings[:20]],
    }


def describe_ledger(report: dict[str, Any]) -> str:
    """Return the ledger's verification in one line, with the origin of its requests."""
    ledger = report["ledger"]
    if not ledger["consistent"]:
        return str(ledger["error"] or f"{ledger['total_findings']:,} findings")
    sent, warm_up = report["requests"], report["warm_up_requests"]
    others = ledger["requests"] - sent - warm_up
    parts = [f"{sent:,} of the run", f"{warm_up:,} of the warm-up"]
    if others > 0:
        parts.append(f"{others:,} others")
    elif others < 0:
        parts.append(f"{-others:,} fewer, because they did not reach the mobile or were not let in")
    return f"consistent; {ledger['requests']:,} requests: {', '.join(parts)}"
