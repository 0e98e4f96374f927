"""A report as one HTML page that needs nothing else: nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from testbed.load.exchange import ENDINGS, TIERS
from testbed.load.svg import columns_over_time, lines_over_time, stacked_bars

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .15em 1em .15em 0; text-align: left;
vertical-align: top } td.n, th.n { text-align: right }
svg { width: 100%; height: auto } svg text { font-size: 11px; fill: currentColor }
svg polyline { fill: none; stroke-width: 2 } svg .axis { stroke: currentColor }
svg .grid { stroke: currentColor; opacity: .15 }
svg .mark { stroke: currentColor; stroke-dasharray: 3 3; opacity: .6 }
.legend span { margin-right: 1.2em; white-space: nowrap } .legend i { display: inline-block;
width: .8em; height: .8em; margin-right: .35em } .note { opacity: .75 }
.bad { color: #d62828; font-weight: 600 }
""".strip()


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    title = f"dimee load: {report['scenario']}, {report['path']}, {report['rate']:g}/s"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(report['scenario_title'])}. {_label(report)}</p>",
        *_headline(report),
        *_links(report),
        *_latency(report),
        *_shares(report),
        *_cost(report),
        *_attempts(report),
        *_made(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _label(report: dict[str, Any]) -> str:
    if report["label"]:
        return f"Links: {escape(report['label'])}, each measured before the run."
    return f'<span class="bad">No label: {escape(report["no_label_because"])}.</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def cell(tag: str, value: object, first: bool) -> str:
        kind = "" if first else ' class="n"'
        return f"<{tag}{kind}>{escape(str(value))}</{tag}>"

    lines = ["".join(cell("th", one, number == 0) for number, one in enumerate(head))]
    lines += ["".join(cell("td", one, n == 0) for n, one in enumerate(row)) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _headline(report: dict[str, Any]) -> list[str]:
    latency, sent = report["latency_ms"] or {}, report["sent_late_ms"] or {}
    ledger = report["ledger"]
    against = report["cost"]["against_all_cloud"]
    endings = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in report["endings"].items()
    )
    rows = [
        ("requests", f"{report['requests']:,} in {report['duration_s']:g} s"),
        ("ended", endings),
        ("answered", f"{report['answered_share']:.2%}"),
        ("latency p50 / p95 / p99", " / ".join(_ms(latency.get(p)) for p in ("p50", "p95", "p99"))
         + " ms from the intended time"),
        ("sent late, p99 / most", f"{_ms(sent.get('p99'))} / {_ms(sent.get('max'))} ms, included"),
        ("over the deadline", f"{report['over_deadline_by_50_ms']:,} by more than 50 ms, of "
                              f"{report['deadline_ms']:g} ms"),
        ("cost", "–" if against is None else f"{against:.1%} of all-cloud"),
        ("failed over, escalated", f"{report['failed_over']:,}, {report['escalated']:,}"),
        ("ledger verify", "clean" if ledger.get("clean") else _unclean(ledger)),
    ]  # fmt: skip
    return [_table(("", ""), rows)]


def _unclean(ledger: dict[str, Any]) -> str:
    return str(ledger.get("error") or f"{ledger['total_findings']} findings")


def _links(report: dict[str, Any]) -> list[str]:
    if not report["links"]:
        return []
    rows = [
        (
            f"{one['hop']}: {one['words']}",
            f"{one['rtt_ms']:.2f} of {one['label_rtt_ms']:g} ms "
            f"({one['off'].get('rtt_ms', 0):+.1%})",
            f"{one['up_mbps']:.2f} of {one['label_up_mbps']:g} ({one['off']['up_mbps']:+.1%})",
            f"{one['down_mbps']:.2f} of {one['label_down_mbps']:g} "
            f"({one['off']['down_mbps']:+.1%})",
            "yes" if one["holds"] else "no",
        )
        for one in report["links"]
    ]
    head = ("", "round trip", "up, Mbit/s", "down, Mbit/s", "within 10 %")
    return ["<h2>Links, measured against their labels</h2>", _table(head, rows)]


def _happened(report: dict[str, Any]) -> list[tuple[float, str]]:
    return [(one["at_s"], one["what"]) for one in report["happened"]]


def _latency(report: dict[str, Any]) -> list[str]:
    bins = report["over_time"]
    series = {
        p: [((one["from_s"] + one["until_s"]) / 2, one[p]) for one in bins]
        for p in ("p50", "p95", "p99")
    }
    bars = {f"by {tier}": parts for tier, parts in report["hops_ms"].items()}
    return [
        "<h2>Latency over time</h2>",
        '<p class="note">Of answered requests, from the time that each was meant to be sent; a '
        "server that stalls is seen by all who came meanwhile.</p>",
        lines_over_time("Latency over time", series, report["duration_s"], _happened(report), "ms"),
        "<h2>Latency by hop</h2>",
        '<p class="note">Means of the requests that each tier answered; the parts sum to the mean '
        "latency.</p>",
        stacked_bars("Latency by hop", bars, "ms"),
    ]


def _shares(report: dict[str, Any]) -> list[str]:
    bins = report["over_time"]
    known = {name for one in bins for name in one["endings"]}
    names = [name for name in (*TIERS, *ENDINGS) if name in known]
    columns = [(one["from_s"], one["until_s"], one["endings"]) for one in bins]
    shares = {"answered": {k: float(v) for k, v in report["answered_by"].items() if v}}
    return [
        "<h2>Who answered, and what did not</h2>",
        columns_over_time(
            "Endings over time", columns, names, report["duration_s"], _happened(report)
        ),
        stacked_bars("Shares", shares, "requests"),
        f'<p class="note">Shed (429): {report["endings"].get("shed", 0):,}. Error codes: '
        f"{escape(str(report['error_codes'] or 'none'))}.</p>",
    ]


def _cost(report: dict[str, Any]) -> list[str]:
    cost = report["cost"]
    bars = {
        "this run": {"λ": cost["lambda"]},
        "all in the cloud": {"λ": cost["all_cloud_lambda"]},
    }
    return [
        "<h2>Cost against all-cloud</h2>",
        stacked_bars("Cost", bars, "λ"),
        f'<p class="note">Of answered requests; ${cost["usd"]:.6f} in the price book.</p>',
    ]


def _attempts(report: dict[str, Any]) -> list[str]:
    rows = [(name, f"{count:,}") for name, count in report["attempts"].items()]
    done = [
        (f"{one['at_s']:.2f} s", one["what"] + (f" ({one['error']})" if one["error"] else ""))
        for one in report["happened"]
    ]
    parts = ["<h2>Attempts of answered requests</h2>"]
    parts.append(_table(("tier, reason, end", "attempts"), rows))
    if done:
        parts += ["<h2>What was done to the testbed</h2>", _table(("at", ""), done)]
    return parts


def _made(report: dict[str, Any]) -> list[str]:
    machine = report["machine"]
    rows = [
        ("command", report["command"]),
        ("seed", report["seed"]),
        *_trace(report),
        ("commit", report["commit"]),
        ("bundle", report["bundle_id"]),
        ("policy", report["policy"]),
        ("made at", report["made_at"]),
        ("machine", f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
                    f"load {machine['load_before']:.2f} before"),
    ]  # fmt: skip
    return ["<h2>How it was made</h2>", _table(("", ""), rows)]


def _trace(report: dict[str, Any]) -> list[tuple[str, str]]:
    if not report["trace"]:
        return []
    return [("arrivals", f"{report['trace']}, {report['trace_left_out']:,} after the end left out")]
