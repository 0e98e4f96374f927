"""The benchmark's JSON as a page of tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def page(report: dict[str, Any], name: str) -> str:
    """Markdown of every part that ``report`` holds; ``name`` is that of its files."""
    makers: dict[str, Callable[[dict[str, Any]], str]] = {
        "servers": _servers,
        "open": _open,
        "bare": _bare,
        "early-exit": _early_exit,
        "runtimes": _runtimes,
        "anatomy": partial(_anatomy, name=name),
        "growth": _growth,
    }
    parts = [maker(report[part]) for part, maker in makers.items() if part in report]
    return "\n\n".join(["# Servers of one encoder, measured", *parts]) + "\n"


def _made(part: dict[str, Any]) -> str:
    machine = part["machine"]
    return (
        f"{part['made_at']}, commit {part['commit']}, bundle `{part['bundle_id']}`, "
        f"{machine['cores']} cores ({machine['cpu']}; load before: {machine['load_before']}), "
        f"Python {machine['python']}: `{part['command']}`"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _servers(part: dict[str, Any]) -> str:
    found = part["found"]
    rows, tried = [], []
    for name, one in found.items():
        at = one["median"]
        rates = [run["64"]["rps"] for run in one["runs"]]
        last = at["64"]
        rows.append(
            [
                name,
                one["precision"],
                *(f"{at[level]['rps']:.0f}" for level in at),
                f"{min(rates):.0f}–{max(rates):.0f}",
                f"{at['1']['p50_ms']:.1f}",
                " / ".join(f"{last[p]:.0f}" for p in ("p50_ms", "p95_ms", "p99_ms")),
                f"{last['cpu_s_per_1000']:.2f}",
                f"{last['peak_mb']:.0f}",
            ]
        )
        versions = ", ".join(f"{package} {number}" for package, number in one["versions"].items())
        others = ", ".join(f"{key}: {rate:g}" for key, rate in one["tried_rps_at_64"].items())
        tried.append([name, one["variant"], others, versions])
    head = ["server", "precision", "1", "8", "64", "64, range", "p50 at 1, ms"]
    head += ["p50 / p95 / p99 at 64, ms", "CPU s / 1,000", "peak MB"]
    return "\n\n".join(
        [
            "## Closed loop: requests a second at concurrency 1, 8 and 64",
            f"{_made(part)}. Medians of {part['runs']} alternating runs of {part['seconds']:g} s; "
            "the client runs on the same cores; one text a request.",
            _table(head, rows),
            _ratios(found),
            "Settings: each was tried as in the third column (requests/s at 64) and ran as in the "
            "second.",
            _table(["server", "settings", "tried", "versions"], tried),
        ]
    )


def _ratios(found: dict[str, Any]) -> str:
    rates = {name: [run["64"]["rps"] for run in one["runs"]] for name, one in found.items()}
    lines = []
    for ours in ("dimee", "dimee fp32"):
        if ours not in rates:
            continue
        shown = []
        for name, theirs in rates.items():
            if name.startswith("dimee"):
                continue
            ratios = sorted(a / b for a, b in zip(rates[ours], theirs, strict=True) if b)
            if ratios:
                shown.append(f"{ratios[len(ratios) // 2]:.1f} × {name}")
        lines.append(f"- {ours}: {', '.join(shown)}")
    return "At 64, median of the ratios of each round:\n\n" + "\n".join(lines)


def _open(part: dict[str, Any]) -> str:
    found = part["found"]
    rows = [
        [
            name,
            share,
            str(one["offered"]),
            str(one["errors"]),
            *(f"{one[p]:.0f}" for p in ("p50_ms", "p95_ms", "p99_ms")),
        ]
        for name, shares in found["by_server"].items()
        for share, one in shares.items()
    ]
    head = ["server", "of the best one's capacity", "sent", "not answered in 10 s or refused"]
    return "\n\n".join(
        [
            "## Open loop: Poisson arrivals, latency from the intended time",
            f"{_made(part)}. Capacity {found['capacity_rps']:.0f} requests/s, "
            f"{part['seconds']:g} s, once each.",
            _table([*head, "p50 ms", "p95 ms", "p99 ms"], rows),
        ]
    )


def _bare(part: dict[str, Any]) -> str:
    found = part["found"]
    rows = [[name, *(f"{rate:.0f}" for rate in rates.values())] for name, rates in found.items()]
    return "\n\n".join(
        [
            "## The limit: the layers alone, texts a second",
            f"{_made(part)}. One thread a core, tokenised texts sorted by length; medians of "
            f"{part['runs']}.",
            _table(["layers", "batches of 1", "of 8", "of 32"], rows),
        ]
    )


def _early_exit(part: dict[str, Any]) -> str:
    rows = [
        [
            tier,
            f"{one['off_texts_s']:.0f}",
            f"{one['on_texts_s']:.0f}",
            f"{one['ratio']:.2f} ({one['ratio_min']:.2f}–{one['ratio_max']:.2f})",
        ]
        for tier, one in part["found"].items()
    ]
    return "\n\n".join(
        [
            "## Early exit on against off, batches of 32 in the order of the file",
            f"{_made(part)}. Texts a second on one thread at the bundle's α.",
            _table(["tier", "off", "on", "ratio"], rows),
        ]
    )


def _runtimes(part: dict[str, Any]) -> str:
    found = part["found"]
    shapes = list(next(iter(found.values())))
    rows = [[name, *(f"{ms[shape]:.2f}" for shape in shapes)] for name, ms in found.items()]
    return "\n\n".join(
        [
            "## Runtimes: milliseconds for one call of all layers, rows × tokens",
            f"{_made(part)}. All cores for one call, but where it says one thread, which is how a "
            f"tier serves; medians of {part['runs']} rounds.",
            _table(["runtime", *shapes], rows),
        ]
    )


def _anatomy(part: dict[str, Any], name: str) -> str:
    found = part["found"]
    names = list(next(iter(found.values()))["parts_us"])
    rows = [
        [tier, *(str(one["parts_us"][what]) for what in names), f"{one['beyond_layers_ms']:.2f}"]
        for tier, one in found.items()
    ]
    return "\n\n".join(
        [
            "## Where a request's microseconds go",
            f"{_made(part)}. Medians, one request at a time from the SDK; the last column is what "
            "the exchange costs beyond the layers, in milliseconds.",
            f"![microseconds by part]({name}-anatomy.svg)",
            _table(["tier", *names, "beyond the layers, ms"], rows),
        ]
    )


def _growth(part: dict[str, Any]) -> str:
    found = part["found"]
    rows = [
        [what, f"{found[key]['one']:.0f}", f"{found[key]['all']:.0f}", f"{found[ratio]:.2f}"]
        for what, key, ratio in (
            (
                "edge over HTTP, client on its cores, requests/s at 64",
                "edge_rps",
                "edge_ratio",
            ),
            ("layers alone, batches of 8, texts/s", "layers_texts_s", "layers_ratio"),
        )
    ]
    return "\n\n".join(
        [
            f"## From one core to {found['cores']}",
            f"{_made(part)}. Medians of {part['runs']} alternating runs.",
            _table(["", "one core", f"{found['cores']} cores", "ratio"], rows),
        ]
    )
