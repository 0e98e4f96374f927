"""Pictures as inline SVG: lines over time, stacked columns, stacked bars. No script, no font."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 64, 16, 14, 34
COLOURS = {
    "mobile": "#2a9d8f",
    "edge": "#e9a23b",
    "cloud": "#3d6fb4",
    "shed": "#b5179e",
    "timed_out": "#d62828",
    "unavailable": "#8d5a4a",
    "refused": "#777777",
    "failed": "#5c0a0a",
    "no_answer": "#000000",
    "p50": "#2a9d8f",
    "p95": "#e9a23b",
    "p99": "#d62828",
}
_SPARE = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#76b7b2", "#edc948", "#e15759",
          "#ff9da7", "#bab0ac", "#86bcb6", "#d4a6c8", "#499894")  # fmt: skip


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name: its own, or the next spare one."""
    spare = iter(_SPARE * 4)
    return {name: COLOURS.get(name) or next(spare) for name in names}


def legend(names: Sequence[str], paint: Mapping[str, str]) -> str:
    """Names with their colours, in HTML."""
    items = (
        f'<span><i style="background:{paint[name]}"></i>{escape(name)}</span>' for name in names
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _frame(height: int, inner: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{inner}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _box(x: float, y: float, width: float, height: float, colour: str, words: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" fill="{colour}"><title>{escape(words)}</title></rect>'
    )


def _nice(most: float) -> float:
    """The next 1, 2 or 5 times a power of ten, a fifth of ``most`` or more."""
    raw = max(most, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw)


class _Time:
    """The axis of time, and the marks of what happened."""

    def __init__(self, duration_s: float, height: int) -> None:
        self.duration_s, self.height = duration_s, height
        self.base = height - BOTTOM

    def x(self, at_s: float) -> float:
        return LEFT + at_s / self.duration_s * (WIDTH - LEFT - RIGHT)

    def axis(self) -> str:
        step, parts, at = _nice(self.duration_s), [], 0.0
        while at <= self.duration_s + 1e-9:
            parts.append(_text(self.x(at), self.base + 18, f"{at:g} s"))
            at += step
        return "".join(parts) + _line(LEFT, self.base, WIDTH - RIGHT, self.base, "axis")

    def marks(self, happened: Sequence[tuple[float, str]]) -> str:
        parts = []
        for number, (at, words) in enumerate(happened):
            x = self.x(at)
            parts.append(_line(x, TOP, x, self.base, "mark"))
            parts.append(_text(x + 3, TOP + 10 + 12 * (number % 3), words, "start"))
        return "".join(parts)


def lines_over_time(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    duration_s: float,
    happened: Sequence[tuple[float, str]],
    unit: str,
) -> str:
    """Lines on a logarithmic axis; None leaves a gap."""
    height = 300
    time = _Time(duration_s, height)
    values = [y for points in series.values() for _, y in points if y]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=10.0))))

    def y_of(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return time.base - share * (time.base - TOP)

    parts = [time.axis()]
    for power in range(low, high + 1):
        y = y_of(10.0**power)
        parts += [
            _line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            _text(LEFT - 6, y + 4, f"{10.0**power:g} {unit}", "end"),
        ]
    paint = colours(list(series))
    for name, points in series.items():
        runs: list[list[str]] = [[]]
        for at, value in points:
            if value is None:
                runs.append([])
            else:
                runs[-1].append(f"{time.x(at):.1f},{y_of(value):.1f}")
        for run in filter(None, runs):
            parts.append(f'<polyline stroke="{paint[name]}" points="{" ".join(run)}"/>')
    parts.append(time.marks(happened))
    return legend(list(series), paint) + _frame(height, "".join(parts), title)


def columns_over_time(
    title: str,
    columns: Sequence[tuple[float, float, Mapping[str, int]]],
    names: Sequence[str],
    duration_s: float,
    happened: Sequence[tuple[float, str]],
) -> str:
    """Stacked columns of requests a second: (from, until, counts by name)."""
    height = 240
    time = _Time(duration_s, height)
    rates = [sum(counts.values()) / (until - begin) for begin, until, counts in columns]
    step = _nice(max(rates, default=1.0))
    most = step * math.ceil(max(max(rates, default=1.0), 1e-9) / step)
    tall = time.base - TOP
    paint = colours(names)
    parts, at = [time.axis()], 0.0
    while at <= most + 1e-9:
        y = time.base - at / most * tall
        parts += [
            _line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            _text(LEFT - 6, y + 4, f"{at:g} /s", "end"),
        ]
        at += step
    for begin, until, counts in columns:
        y = time.base
        for name in names:
            rate = counts.get(name, 0) / (until - begin)
            if rate:
                part = rate / most * tall
                y -= part
                wide = time.x(until) - time.x(begin) - 1
                words = f"{begin:.1f} to {until:.1f} s, {name}: {counts[name]}"
                parts.append(_box(time.x(begin), y, wide, part, paint[name], words))
    parts.append(time.marks(happened))
    return legend(names, paint) + _frame(height, "".join(parts), title)


def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Horizontal bars, each of parts; the whole stands at its end."""
    height = 30 * len(bars) + 8
    names = list(dict.fromkeys(name for parts in bars.values() for name in parts))
    paint = colours(names)
    most = max((sum(parts.values()) for parts in bars.values()), default=0.0) or 1.0
    wide = WIDTH - 150 - 110
    drawn = []
    for row, (label, bar) in enumerate(bars.items()):
        y, x = 4 + 30 * row, 150.0
        drawn.append(_text(142, y + 16, label, "end"))
        for name, value in bar.items():
            part = value / most * wide
            drawn.append(_box(x, y, part, 22, paint[name], f"{name}: {value:,.2f} {unit}"))
            x += part
        drawn.append(_text(x + 6, y + 16, f"{sum(bar.values()):,.1f} {unit}", "start"))
    return legend(names, paint) + _frame(height, "".join(drawn), title)
