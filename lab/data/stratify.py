"""Splits in which each part has each class, for small data and rare classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from shared.errors import InvalidInput


def cut_by_class(
    labels: Sequence[int], order: Sequence[int], names: Sequence[str]
) -> tuple[list[int], list[int], list[int]]:
    """Return the rows of the training, validation and test part: 80/10/10 of each class.

    Each part has at least one row of each class. Rows are in the order of ``order``. Raises
    `InvalidInput` for a class with fewer than three rows.
    """
    part_of: dict[int, int] = {}
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row in order:
        rows_of[labels[row]].append(row)
    counts = Counter(labels)
    for label, rows in sorted(rows_of.items()):
        if len(rows) < 3:
            raise InvalidInput(
                f"data: {_name(label, names)} has {_count(len(rows))}, and each of the three parts "
                f"of the data needs one; give more, or remove the class{_others(counts, 3)}"
            )
        tenth = max(1, len(rows) // 10)
        for place, row in enumerate(rows):
            part_of[row] = 2 if place < tenth else 1 if place < 2 * tenth else 0
    train, validation, test = ([row for row in order if part_of[row] == part] for part in range(3))
    return train, validation, test


def groups_by_class(
    labels: Sequence[int],
    groups: Sequence[str],
    order: Sequence[str],
    rows: int,
    keep: int,
    names: Sequence[str],
) -> set[str]:
    """Return groups to hold out so that both parts have each class, about ``rows`` rows in all.

    First comes the smallest group for each class, rare classes first, then groups in ``order``. Of
    each class, ``keep`` groups are not held out. Raises `InvalidInput` for a class that is in too
    few groups.
    """
    counts: dict[str, Counter[int]] = {group: Counter() for group in order}
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    groups_left = Counter(label for count in counts.values() for label in count)
    remaining = rows
    held: set[str] = set()

    def can_hold(group: str) -> bool:
        return group not in held and all(groups_left[label] > keep for label in counts[group])

    def hold(group: str) -> None:
        nonlocal remaining
        held.add(group)
        groups_left.subtract([*counts[group]])
        remaining -= counts[group].total()

    total, groups_of = Counter(labels), dict(groups_left)
    for label in sorted(total, key=lambda label: (total[label], label)):
        if groups_left[label] < groups_of[label]:
            continue
        candidates = [group for group in order if counts[group][label] and can_hold(group)]
        if not candidates:
            raise InvalidInput(
                f"data: {_name(label, names)} has {_count(total[label])}, too few for each part "
                "of the data to have one without a text in two parts; give more of that class, or "
                f"remove it{_others(total, keep + 1)}"
            )
        hold(min(candidates, key=lambda group: counts[group].total()))
    for group in order:
        if counts[group].total() <= remaining and can_hold(group):
            hold(group)
    return held


def _name(label: int, names: Sequence[str]) -> str:
    return f"the class {names[label]!r}" if names else f"class {label}"


def _others(counts: Counter[int], least: int) -> str:
    """Return a note if more than one class has fewer than ``least`` examples."""
    small = sum(count < least for count in counts.values())
    if small < 2:
        return ""
    return f" ({small:,} of the {len(counts):,} classes have fewer than {least} examples)"


def _count(examples: int) -> str:
    return "1 example" if examples == 1 else f"{examples} examples"
