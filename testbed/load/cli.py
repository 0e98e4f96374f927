"""``dimee load``: send load that does not wait for answers, and write a report."""

from __future__ import annotations

import json
import random
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
import httpx
from click.core import ParameterSource

from mobile_client.cli.policy_help import POLICY_HELP
from mobile_client.cli.text_options import field_options
from shared.bounded_transport import BoundedTransport
from shared.credentials import Credentials
from shared.domain import InputText
from shared.errors import DimeeError, InvalidInput, from_payload
from shared.extras import TESTBED, require
from shared.files import prepare_output
from shared.http_fetch import fetch, json_of, parse_json
from shared.labels import counted
from shared.pricing.live_prices import read_price_file
from shared.redaction import without_credentials
from testbed.gateway import fetch_bundle, gateway_client
from testbed.links.probe import describe
from testbed.load.actions import actions_of
from testbed.load.arrivals import from_trace, poisson
from testbed.load.fleet.command import FLEET_OPTIONS, fleet_options, run_command
from testbed.load.generator import send_in_turn
from testbed.load.http_client import HttpClient, run
from testbed.load.load_run import LoadRun
from testbed.load.output import report_files, write_comparison, write_report
from testbed.load.provenance import provenance
from testbed.load.report import make_report
from testbed.load.runner import PlannedRequest
from testbed.load.sample import PATH, Sample, request_body
from testbed.load.scenarios import SCENARIOS, Scenario, scenario_facts
from testbed.load.target import LoadTarget, check_url, find_testbed, start_testbed
from testbed.load.texts import digest_of, in_passes, texts_to_send
from testbed.up import describe_bundle

PATHS = ("policy", "mobile", "edge", "cloud")
WARM_UP = 20
WARM_UP_DEADLINE_MS = 20_000


@click.command()
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    default="steady",
    show_default=True,
    help="How the rate changes and which faults are injected.",
)
@click.option(
    "--path",
    type=click.Choice(PATHS),
    default="policy",
    show_default=True,
    help="Tier that answers; policy lets the mobile decide.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 5_000),
    help="Requests a second.  [default: that of the scenario, 20 or 100]",
)
@click.option(
    "--duration",
    "duration_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3_600),
    help="Length of the run in seconds.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of arrivals, texts and links.")
@click.option(
    "--arrivals",
    type=click.Path(path_type=Path),
    help="File of send times in seconds, one per line, in place of Poisson arrivals.",
)
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    help="File of texts; with labels the report has the accuracy.  [default: the bundle's samples]",
)
@field_options()
@click.option(
    "--deadline-ms",
    default=5_000.0,
    show_default=True,
    type=click.FloatRange(1, 60_000),
    help="Deadline of each request in ms.",
)
@click.option(
    "--link", "links", multiple=True, metavar="HOP=LINK", help="Emulated link, as for dimee up."
)
@click.option(
    "--allow-unverified", is_flag=True, help="Accept links that deviate by more than 10 %."
)
@click.option("--bundle", type=click.Path(), help="Folder of the model bundle.")
@click.option(
    "--policy",
    metavar="POLICY",
    help=f"Routing policy of the testbed's mobile, used by --path policy: {POLICY_HELP}",
)
@click.option(
    "--price-book",
    type=click.Path(path_type=Path),
    help="Price book of the testbed's mobile; by default the bundle's prices.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Load the running testbed with this state folder.",
)
@click.option("--url", help="Load the gateway at this address; its links are not measured.")
@click.option("--ledger-url", help="Address of the ledger to verify after a run with --url.")
@click.option("--allow-remote", is_flag=True, help="Allow a --url on another machine.")
@fleet_options
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A.json B.json",
    help="Send nothing: compare the reports of two runs, and write a page to OUT.html.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the report to OUT.json and OUT.html.  [default: load, or load-compare]",
)
def load(
    scenario: str,
    out: Path | None,
    allow_unverified: bool,
    compared: tuple[Path, Path] | None,
    **options: Any,
) -> None:
    """Send load that does not wait for answers, and write a report with charts.

    Starts a testbed and stops it at the end, unless --state-dir or --url names one. Latency counts
    from the time at which a request was meant to be sent. Exits with 2 if no request was answered.
    Ctrl-C, SIGTERM and SIGHUP end the run early: the report then has the requests that have ended.
    """
    require(("jinja2", "matplotlib", "uvloop"), "dimee load", *TESTBED)
    if compared is not None:
        _refuse_other_options("--compare", "--compare sends no requests", "compared", "out")
        write_comparison(out or Path("load-compare"), *compared)
        return
    out = out or Path("load")
    for file in report_files(out):
        prepare_output(file, "out")
    if options["devices"] is not None:
        _refuse_other_options("--devices", "--devices does not use it", *FLEET_OPTIONS)
        run_command(out, allow_unverified, options)
        return
    chosen = SCENARIOS[scenario]
    duration_s, seed = options["duration_s"], options["seed"]
    arrivals, rate, left_out = _arrivals(chosen, options)
    origin = provenance()
    credentials = Credentials.from_environment()
    running = _running_target(chosen, options) if options["url"] or options["state_dir"] else None
    texts = _texts(running, credentials, options)
    sent = LoadRun()
    with sent.until_signal(), _target(running, chosen, allow_unverified, options) as target:
        links = target.measure_links(allow_unverified)
        for measurement in links:
            click.echo(f"  {describe(measurement)}")
        ready = _readiness(target.url, credentials)
        client = HttpClient(target.url, PATH, credentials)
        plan, warm_up = _plan(client, target.url, chosen, arrivals, texts, options)
        click.echo(
            f"sent {len(warm_up):,} requests before the run, to warm the tiers up; the ledger has "
            "them, the report does not"
        )
        click.echo(f"sending {counted(len(plan), 'request')} in {duration_s:g} s …")
        actions = actions_of(chosen, duration_s, target, credentials)
        sent.send(client, plan, options["deadline_ms"], actions)
        sent.verify(target.ledger_url, credentials, warm_up)
    book = options["price_book"]
    facts = {
        **scenario_facts(scenario, options["arrivals"]),
        "warm_up_requests": len(warm_up),
        "path": options["path"],
        "policy": ready.get("policy"),
        "rate": rate,
        **sent.facts(duration_s),
        "deadline_ms": options["deadline_ms"],
        "seed": seed,
        "price_book": read_price_file(book).version if book else None,
        "trace": options["arrivals"] and str(options["arrivals"]),
        "trace_left_out": left_out,
        "texts_sha256": digest_of(texts),
        "bundle_id": ready.get("bundle_id"),
        "links": links,
        **_link_verdict(links, options),
        "ledger": sent.ledger,
        **origin,
    }
    report = make_report(
        facts, sent.samples, sent.actions, facts["duration_s"], options["deadline_ms"]
    )
    write_report(out, report)
    if sent.stopped is not None:
        raise sent.stopped


def _refuse_other_options(mode: str, why: str, *used: str) -> None:
    """Raise `InvalidInput` if the command line has an option that ``mode`` does not use."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in used:
            continue
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            option = parameter.opts[0]
            raise InvalidInput(f"{option}: {why}; leave out {option} or {mode}", field=option)


def _arrivals(chosen: Scenario, options: dict[str, Any]) -> tuple[list[float], float, int]:
    """Return the send times, their rate, and how many lines of a trace were left out."""
    duration_s, left_out = options["duration_s"], 0
    if options["arrivals"]:
        arrivals, left_out = from_trace(options["arrivals"], duration_s)
        rate = len(arrivals) / duration_s
        if left_out:
            click.echo(f"left out of the trace, because they are after --duration: {left_out:,}")
    else:
        rate = options["rate"] or chosen.rate
        arrivals = poisson(rate, duration_s, chosen.shape, options["seed"])
    if not arrivals:
        raise InvalidInput(
            "load: the run is too short to send a request; raise --rate or --duration"
        )
    return arrivals, rate, left_out


def _texts(
    running: LoadTarget | None, credentials: Credentials, options: dict[str, Any]
) -> list[InputText]:
    """Return the texts to send; raises `InvalidInput` if they do not suit the bundle."""
    if running is None:
        bundle = describe_bundle(options)
    else:
        with gateway_client(running.url, credentials, 10.0) as http:
            bundle = fetch_bundle(http)
    return texts_to_send(bundle, options["texts"], options, options["seed"])


def _target(
    running: LoadTarget | None, chosen: Scenario, allow_unverified: bool, options: dict[str, Any]
) -> AbstractContextManager[LoadTarget]:
    """Return the running testbed, or one to start."""
    if running is not None:
        return nullcontext(running)
    links = dict(link.partition("=")[::2] for link in options["links"])
    if len(links) < len(options["links"]):
        raise InvalidInput("--link: a hop has two links; give it one")
    up_options: list[str] = ["--allow-unverified"] if allow_unverified else []
    if options["price_book"]:
        read_price_file(options["price_book"])  # an invalid book fails before anything starts
    for name in ("bundle", "policy", "price_book"):
        if options[name]:
            up_options += [f"--{name.replace('_', '-')}", str(options[name])]
    restart_share = chosen.restart_after
    restart_after_s = None if restart_share is None else restart_share * options["duration_s"]
    click.echo("starting a testbed …")
    return start_testbed(chosen.links | links, options["seed"], restart_after_s, tuple(up_options))


def _running_target(chosen: Scenario, options: dict[str, Any]) -> LoadTarget:
    if options["links"]:
        raise InvalidInput("--link: the testbed is running already; use dimee link set")
    if options["price_book"]:
        raise InvalidInput(
            "--price-book: the testbed is running already; set DIMEE_PRICE_BOOK of its mobile"
        )
    if options["state_dir"]:
        target = find_testbed(options["state_dir"])
    else:
        remote, ledger = options["allow_remote"], options["ledger_url"]
        ledger = check_url(ledger, remote) if ledger else ""
        target = LoadTarget(check_url(options["url"], remote), ledger)
    for fault in chosen.faults:
        if fault.kind == "kill" or fault.name not in target.links:
            raise InvalidInput(
                f"--scenario: this fault needs a testbed of its own ({fault}); leave out --url and "
                "--state-dir, or start a testbed with this link"
            )
    return target


def _readiness(url: str, credentials: Credentials) -> dict[str, Any]:
    try:
        with httpx.Client(transport=BoundedTransport(credentials.verify), timeout=10.0) as http:
            ready = json_of(fetch(http, "GET", f"{url}/readyz"))
    except httpx.HTTPError as error:
        raise DimeeError(
            f"no gateway answers at {without_credentials(url)} ({error or type(error).__name__}); "
            "start one: dimee up"
        ) from None
    if not isinstance(ready, dict):
        raise DimeeError(f"the server at {without_credentials(url)} is no gateway; correct --url")
    tiers = ready.get("tiers")
    items = tiers.items() if isinstance(tiers, dict) else ()
    away = [f"{tier} ({readiness})" for tier, readiness in items if readiness != "ready"]
    if away:
        click.echo(f"the gateway does not reach: {', '.join(away)}; other tiers answer instead")
    return ready


def _plan(
    client: HttpClient,
    url: str,
    chosen: Scenario,
    arrivals: list[float],
    texts: list[InputText],
    options: dict[str, Any],
) -> tuple[list[PlannedRequest], list[Sample]]:
    """Warm the tiers up with some texts, and choose text and policy of each request.

    Returns the plan and the samples of the warm-up.
    """
    rng = random.Random(options["seed"])
    if chosen.escalating is None:
        policy = None if options["path"] == "policy" else options["path"]
        warm_up = _classify(client, url, texts[:WARM_UP], policy)
        chosen_texts = in_passes(texts, len(arrivals), rng)
        plan = [
            PlannedRequest(at, text, policy)
            for at, text in zip(arrivals, chosen_texts, strict=True)
        ]
        return plan, warm_up
    samples = _classify(client, url, texts, "cascade-routing")
    escalating = [text for text, sample in zip(texts, samples, strict=True) if sample.escalated]
    if not escalating:
        raise DimeeError(
            f"none of {len(texts)} texts escalates under the policy cascade-routing with this "
            "bundle; give others with --texts"
        )
    chosen_numbers = rng.sample(range(len(arrivals)), round(chosen.escalating * len(arrivals)))
    numbers = set(chosen_numbers)
    plan = [
        PlannedRequest(at, rng.choice(escalating), "cascade-routing")
        if number in numbers
        else PlannedRequest(at, rng.choice(texts), "mobile")
        for number, at in enumerate(arrivals)
    ]
    return plan, samples


def _classify(
    client: HttpClient, url: str, texts: list[InputText], policy: str | None
) -> list[Sample]:
    """Send texts one after the other, before the run."""
    bodies = [
        json.dumps(request_body(text, policy, WARM_UP_DEADLINE_MS)).encode() for text in texts
    ]
    samples = []
    for answer in run(send_in_turn(client, bodies)):
        if answer.status == 0:
            shown = without_credentials(url)
            raise DimeeError(f"the gateway at {shown} was lost before the run ({answer.error})")
        if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:  # a text or the policy is wrong
            raise from_payload(parse_json(answer.body), answer.status)
        sample = Sample(answer.number, 0.0)
        sample.read(answer)
        samples.append(sample)
    return samples


def _link_verdict(links: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, str | None]:
    unverified = [link["hop"] for link in links if not link["verified"]]
    if unverified:
        reason = f"deviation of more than 10 %: {', '.join(unverified)}"
    elif not links:
        reason = "nothing was measured" if options["url"] else "the testbed has no emulated link"
    else:
        specs = ", ".join(f"{link['hop']}={link['spec']}" for link in links)
        return {"verified_links": specs, "unverified_because": None}
    return {"verified_links": None, "unverified_because": reason}
