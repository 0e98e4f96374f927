"""``dimee load``."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx

from shared.credentials import Credentials
from shared.errors import DimeeError, InvalidInput
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.pricing.live_prices import read_price_file
from testbed.load.arrivals import from_trace, poisson
from testbed.load.exchange import PATH, Sample, body, read
from testbed.load.page import page
from testbed.load.report import made_with, make_report
from testbed.load.runner import Action, Planned, run_load
from testbed.load.scenarios import SCENARIOS, Fault, Scenario
from testbed.load.target import Bed, check_url, own_bed, standing_bed
from testbed.load.texts import make_texts, read_texts

PATHS = ("policy", "mobile", "edge", "cloud")
VERIFY_S = 30.0
SCOUTED = 300


@click.command()
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="steady", show_default=True)
@click.option(
    "--path", type=click.Choice(PATHS), default="policy", show_default=True, help="Who decides."
)
@click.option("--rate", type=click.FloatRange(0.01, 5_000), help="Requests a second; 20, or 100.")
@click.option(
    "--duration",
    "duration_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3_600),
    help="Seconds.",
)
@click.option("--seed", default=1, show_default=True, help="Of arrivals, texts and links.")
@click.option(
    "--arrivals", type=click.Path(path_type=Path), help="Seconds, one a line; no Poisson, no shape."
)
@click.option("--texts", type=click.Path(path_type=Path), help="One text a line.")
@click.option("--deadline-ms", default=5_000.0, show_default=True, type=click.FloatRange(1, 60_000))
@click.option("--link", "links", multiple=True, metavar="HOP=LINK", help="As for dimee up.")
@click.option("--allow-unverified", is_flag=True, help="Go on with links that are off their label.")
@click.option("--bundle", type=click.Path(), help="Folder of the model's bundle.")
@click.option("--policy", help="The testbed's policy, where --path leaves it to it.")
@click.option(
    "--price-book",
    type=click.Path(path_type=Path),
    help="The prices of the testbed's mobile; the bundle's if left out.",
)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Load the testbed that stands there."
)
@click.option("--url", help="Load the gateway at this address; nothing is broken or measured.")
@click.option("--ledger-url", help="With --url: the ledger, to verify afterwards.")
@click.option("--allow-remote", is_flag=True, help="Load a host that is not this machine.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("load"),
    show_default=True,
    help="Where OUT.json and OUT.html are written.",
)
def load(scenario: str, out: Path, allow_unverified: bool, **options: Any) -> None:
    """Send load that does not wait for answers, and draw what came of it.

    Starts a testbed of its own and ends it, unless --state-dir or --url names one. Latency counts
    from the time that each request was meant to be sent.
    """
    chosen = SCENARIOS[scenario]
    rate = options["rate"] or chosen.rate
    duration_s, seed = options["duration_s"], options["seed"]
    left_out = 0
    if options["arrivals"]:
        arrivals, left_out = from_trace(options["arrivals"], duration_s)
        rate = len(arrivals) / duration_s
        if left_out:
            click.echo(f"left out, because they come after --duration: {left_out:,} of the trace")
    else:
        arrivals = poisson(rate, duration_s, chosen.shape, seed)
    if not arrivals:
        raise InvalidInput(
            "load: no request falls into so short a time; raise --rate or --duration"
        )
    texts = read_texts(options["texts"]) if options["texts"] else make_texts(SCOUTED, seed)
    made = made_with()
    with _bed(chosen, allow_unverified, options) as bed:
        links = bed.measure(allow_unverified)
        for one in links:
            click.echo(_measured(one))
        ready = _ready(bed.url)
        planned = _plan(bed, chosen, arrivals, texts, options)
        click.echo(f"sending {len(planned):,} requests in {duration_s:g} s …")
        samples, happened = asyncio.run(
            run_load(
                bed.url,
                planned,
                options["deadline_ms"],
                _actions(bed, chosen, duration_s),
                shown=Credentials.from_environment(),
            )
        )
        ledger = _verify(bed, sum(one.ending == "answered" for one in samples))
    facts = {
        "scenario": scenario,
        "scenario_title": chosen.title,
        "path": options["path"],
        "policy": ready.get("policy"),
        "rate": rate,
        "duration_s": duration_s,
        "deadline_ms": options["deadline_ms"],
        "seed": seed,
        "price_book": read_price_file(options["price_book"]).version
        if options["price_book"]
        else None,
        "trace": options["arrivals"] and str(options["arrivals"]),
        "trace_left_out": left_out,
        "bundle_id": ready.get("bundle_id"),
        "links": links,
        **_label(links, options),
        "ledger": ledger,
        **made,
    }
    report = make_report(facts, samples, happened, duration_s, options["deadline_ms"])
    _write(out, report)


def _bed(
    chosen: Scenario, allow_unverified: bool, options: dict[str, Any]
) -> AbstractContextManager[Bed]:
    if options["url"] or options["state_dir"]:
        if options["links"]:
            raise InvalidInput("--link: the testbed stands already; use dimee link set")
        if options["price_book"]:
            raise InvalidInput(
                "--price-book: the testbed stands already; give its mobile DIMEE_PRICE_BOOK"
            )
        if options["state_dir"]:
            bed = standing_bed(options["state_dir"])
        else:
            remote, ledger = options["allow_remote"], options["ledger_url"]
            ledger = check_url(ledger, remote) if ledger else ""
            bed = Bed(check_url(options["url"], remote), ledger, {}, {})
        for fault in chosen.faults:
            if fault.what == "kill" or fault.name not in bed.links:
                raise InvalidInput(
                    f"--scenario: it needs a testbed of its own ({fault}); leave out --url and "
                    "--state-dir, or start one with this link"
                )
        return nullcontext(bed)
    asked = dict(link.partition("=")[::2] for link in options["links"])
    if len(asked) < len(options["links"]):
        raise InvalidInput("--link: a hop has two links; give it one")
    extra: list[str] = ["--allow-unverified"] if allow_unverified else []
    if options["price_book"]:
        read_price_file(options["price_book"])  # refused before anything is started
    for name in ("bundle", "policy", "price_book"):
        if options[name]:
            extra += [f"--{name.replace('_', '-')}", str(options[name])]
    restart_after_s = None if chosen.revive is None else chosen.revive * options["duration_s"]
    click.echo("starting a testbed …")
    return own_bed(chosen.links | asked, options["seed"], restart_after_s, tuple(extra))


def _ready(url: str) -> dict[str, Any]:
    try:
        response = httpx.get(
            f"{url}/readyz",
            trust_env=False,
            timeout=10.0,
            verify=Credentials.from_environment().verify,
        )
        return dict(response.json())
    except (httpx.HTTPError, ValueError) as error:
        raise DimeeError(
            f"no gateway answers at {url} ({error or type(error).__name__}); start one: dimee up"
        ) from None


def _plan(
    bed: Bed, chosen: Scenario, arrivals: list[float], texts: list[str], options: dict[str, Any]
) -> list[Planned]:
    dice = random.Random(options["seed"])
    if chosen.rare is None:
        policy = None if options["path"] == "policy" else options["path"]
        _ask(bed.url, texts[:20], policy)  # connections and caches are warm on a mobile that works
        return [Planned(at, dice.choice(texts), policy) for at in arrivals]
    rare = [text for text, sample in _ask(bed.url, texts, "cascade-routing") if sample.escalated]
    if not rare:
        raise DimeeError(
            f"no text of {len(texts)} escalates under the policy cascade-routing with this bundle; "
            "give others with --texts"
        )
    which = set(dice.sample(range(len(arrivals)), round(chosen.rare * len(arrivals))))
    return [
        Planned(at, dice.choice(rare), "cascade-routing")
        if number in which
        else Planned(at, dice.choice(texts), "mobile")
        for number, at in enumerate(arrivals)
    ]


def _ask(url: str, texts: list[str], policy: str | None) -> list[tuple[str, Sample]]:
    """One after the other, before the run; not part of it."""
    found = []
    try:
        shown = Credentials.from_environment()
        with httpx.Client(
            base_url=url, trust_env=False, timeout=30.0, auth=shown.auth, verify=shown.verify
        ) as http:
            for number, text in enumerate(texts):
                sample = Sample(number, 0.0)
                response = http.post(PATH, json=body(text, policy, 20_000))
                read(sample, response.status_code, response.content)
                found.append((text, sample))
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise DimeeError(f"the gateway at {url} was lost before the run ({why})") from None
    return found


def _actions(bed: Bed, chosen: Scenario, duration_s: float) -> list[Action]:
    def act(fault: Fault) -> None:
        if fault.what == "kill":
            bed.kill(fault.name)
        else:
            bed.set_link(fault.name, fault.words)

    return [(fault.at * duration_s, str(fault), partial(act, fault)) for fault in chosen.faults]


def _verify(bed: Bed, requests: int) -> dict[str, Any]:
    if not bed.ledger_url:
        return {"clean": None, "error": "not asked: no ledger named"}
    client = LedgerClient(bed.ledger_url, credentials=Credentials.from_environment())
    try:
        found = wait_for_consistent(client, VERIFY_S, requests)
    except DimeeError as error:
        return {"clean": False, "error": error.message}
    finally:
        client.close()
    return {
        "clean": found.consistent,
        "requests": found.requests,
        "total_findings": found.total_findings,
        "findings": [one.model_dump(mode="json") for one in found.findings[:20]],
    }


def _label(links: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, str | None]:
    off = [one["hop"] for one in links if not one["holds"]]
    if off:
        return {"label": None, "no_label_because": f"off by more than 10 %: {', '.join(off)}"}
    if not links:
        why = "nothing was measured" if options["url"] else "the testbed has no emulated link"
        return {"label": None, "no_label_because": why}
    return {"label": ", ".join(f"{one['hop']}={one['words']}" for one in links)}


def _measured(one: dict[str, Any]) -> str:
    off = one["off"]
    return (
        f"  {one['hop']} {one['words']}: RTT {one['rtt_ms']:.2f} ms ({off.get('rtt_ms', 0):+.1%}), "
        f"up {one['up_mbps']:.1f} ({off['up_mbps']:+.1%}), "
        f"down {one['down_mbps']:.1f} Mbit/s ({off['down_mbps']:+.1%})"
    )


def _write(out: Path, report: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    files = (out.with_name(out.name + ".json"), out.with_name(out.name + ".html"))
    files[0].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    files[1].write_text(page(report), encoding="utf-8")
    latency = report["latency_ms"] or {}
    shown = " / ".join(f"{latency[p]:.1f}" for p in ("p50", "p95", "p99")) if latency else "–"
    click.echo(
        f"answered {report['answered_share']:.2%} of {report['requests']:,}: "
        + ", ".join(f"{name} {count:,}" for name, count in report["endings"].items())
    )
    click.echo(f"latency p50 / p95 / p99: {shown} ms from the intended time")
    ledger = report["ledger"]
    clean = ledger["clean"]
    click.echo(
        "ledger verify: "
        + ("clean" if clean else str(ledger.get("error") or f"{ledger['total_findings']} findings"))
    )
    click.echo(f"written: {files[0]} and {files[1]}")
