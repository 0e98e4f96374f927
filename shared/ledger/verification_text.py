"""The text of ``dimee ledger verify``."""

from __future__ import annotations

from shared.ledger.reports import ReplicaGap, Verification
from shared.terminal import one_line

_DAY_S = 86_400.0


def verification_lines(report: Verification, now: float) -> list[str]:
    """Return the findings, the replicas that owe entries, and the result.

    ``now`` is the time in seconds since 1970.
    """
    lines = []
    for finding in report.findings:
        row = f"{finding.attempt_id} {finding.side:<7}"
        at = f" ({one_line(finding.replica)})" if finding.replica else ""
        lines.append(f"{finding.kind:<20} {row} {one_line(finding.detail)}{at}")
    hidden = report.total_findings - len(report.findings)
    if hidden:
        lines.append(f"… and {hidden} more")
    lines += [_gap_line(gap, now) for gap in report.gaps]
    lines.append(
        f"{report.requests} requests, {report.caller_rows} attempts by callers, "
        f"{report.tier_rows} by tiers{_without_tier(report)}: "
        + ("consistent" if report.consistent else f"{report.total_findings} findings")
    )
    return lines


def _gap_line(gap: ReplicaGap, now: float) -> str:
    """Return what a replica owes, and how the ledger gets it."""
    owed = []
    if gap.missing:
        owed.append(f"{gap.missing} attempts that it has answered")
    if gap.open:
        owed.append(f"the ends of {gap.open} attempts")
    if gap.replica is None:
        return (
            f"a replica of the {one_line(gap.tier)} whose name is not known has not delivered "
            f"{' and '.join(owed)}; start every stopped replica again with its state folder"
        )
    heard = ""
    if gap.received_at is not None and 0 <= now - gap.received_at < _DAY_S:
        heard = f" (its last delivery came {now - gap.received_at:.0f} s ago)"
    return (
        f"the {one_line(gap.tier)} replica {one_line(gap.replica)} has not delivered "
        f"{' and '.join(owed)}{heard}; they are in the outbox of its state folder: if it has "
        "stopped, start it again with the same DIMEE_REPLICA and DIMEE_STATE_DIR (volume)"
    )


def _without_tier(report: Verification) -> str:
    """Return why callers have more attempts than tiers, which `verify` finds consistent."""
    count = report.caller_rows - report.tier_rows
    if not report.consistent or not count:
        return ""
    return f" ({count} were not sent, or got no response)"
