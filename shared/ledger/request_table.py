"""The table of ``dimee ledger list``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shared.domain import State
from shared.ledger.request_list import RequestRecord
from shared.terminal import without_controls

_DAY_S = 86_400.0


def lines(records: Sequence[RequestRecord], now: float) -> list[str]:
    """Return the header and a line for each record; times of the last day have no date."""
    with_date = any(not 0 <= now - record.at < _DAY_S for record in records)
    names = [_name(record) for record in records]
    policies = max((len(name) for name in [*names, "policy"]), default=0)
    times = 19 if with_date else 8
    header = (
        f"{'time':<{times}} {'request':<32} {'policy':<{policies}} {'tier':<6} {'exit':>4} "
        f"{'reason':<9} {'conf':>6} {'ms':>9} {'λ':>6}  answer"
    )
    return [
        header,
        *(
            f"{_time(record.at, with_date)} {record.request_id:<32} {name:<{policies}} "
            f"{record.tier.value:<6} {record.exit_layer or '-':>4} "
            f"{record.reason.value if record.reason else '-':<9} {_share(record.confidence):>6} "
            f"{record.total_ms:>9,.1f} {record.cost_lambda:>6,.1f}  {_answer(record)}"
            for record, name in zip(records, names, strict=True)
        ),
    ]


def _time(at: float, with_date: bool) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # a year that the system has no calendar for
        return f"{at:<19.0f}"


def _name(record: RequestRecord) -> str:
    return without_controls(record.policy or "-")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _answer(record: RequestRecord) -> str:
    parts = [record.label if record.state is State.ANSWERED else record.state.value, record.error]
    attempts = f"{record.attempts} attempts" if record.attempts > 1 else None
    return without_controls(", ".join(part for part in [*parts, attempts] if part))
