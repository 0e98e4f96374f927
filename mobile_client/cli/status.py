"""``dimee status``: state of the processes, the certificate, audits and alarms."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from pydantic import ValidationError

from mobile_client.client import load_settings
from mobile_client.monitoring.certificate_monitor import monitor_state_file
from mobile_client.monitoring.health import MobileHealth
from mobile_client.monitoring.state_file import StateFile
from shared.addresses import check_address, split_addresses
from shared.bounded_transport import BoundedTransport
from shared.credentials import Credentials
from shared.domain import Tier
from shared.errors import from_payload
from shared.http_fetch import fetch, json_of
from shared.ledger.recording_state import OutboxReport
from shared.ledger.undelivered import UndeliveredReport
from shared.redaction import without_credentials
from shared.settings import NO_LEDGER
from shared.terminal import one_line
from shared.testbed_file import running_addresses

TIMEOUT_S = 2.0
MAX_STATUS_BYTES = 1024 * 1024
UNREACHABLE = "cannot be reached"
UNKNOWN = "unknown"
PROBE_TRIES = 10
PROBE_WAIT_S = 0.3
DEFAULT_MOBILE_URL = "http://127.0.0.1:8701"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """Status that one process returned; ``problem`` is the reason if it returned none.

    ``seen_by_mobile`` is the mobile's report of a tier that cannot be reached from here, such as
    one whose port is not published: ``ready``, ``not ready``, ``unreachable``, ``failing``,
    ``unknown``, or ``not used`` if the mobile's mode excludes it.
    """

    url: str
    body: dict[str, Any]
    problem: str | None = None
    seen_by_mobile: str | None = None

    @property
    def up(self) -> bool:
        """True if the process is ready."""
        return self.problem is None

    @property
    def unreachable(self) -> bool:
        """True if nothing answers at the address."""
        return self.problem is not None and self.problem.startswith(UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Status:
    """Status of all processes, the mobile's health if it is up, and a list of problems."""

    processes: dict[str, ProcessStatus]
    mobile: MobileHealth | None
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """True if everything is up, not degraded, and has the mobile's bundle and certificate."""
        return not self.problems


def fetch_status(http: httpx.Client, url: str, path: str) -> ProcessStatus:
    """Return the status of one process."""
    address, url = url.rstrip("/") + path, without_credentials(url)
    try:
        response = fetch(http, "GET", address, max_bytes=MAX_STATUS_BYTES)
    except httpx.HTTPError as error:
        return ProcessStatus(url, {}, f"{UNREACHABLE} ({error or type(error).__name__})")
    body = json_of(response)
    if body is None:
        return ProcessStatus(url, {}, "returned no JSON; another program listens at this address")
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        refusal = from_payload(body, response.status_code)
        return ProcessStatus(url, {}, f"rejects this command's token ({refusal.message})")
    if response.status_code != httpx.codes.OK or not isinstance(body, dict):
        problem = f"is not ready (status {response.status_code})"
        if isinstance(body, dict) and "error" in body:
            problem += f": {from_payload(body, response.status_code).message}"
        return ProcessStatus(url, {}, problem)
    return ProcessStatus(url, body)


def undelivered(body: dict[str, Any]) -> UndeliveredReport | None:
    """Return the undelivered entries that a process reports; None if it reports none."""
    try:
        return UndeliveredReport.model_validate(body.get("ledger"))
    except ValidationError:
        return None


def outbox_problem(body: dict[str, Any]) -> str | None:
    """Return what is wrong with the outbox of a process; None if nothing is."""
    try:
        report = OutboxReport.model_validate(body.get("outbox"))
    except ValidationError:
        return None
    return None if report.recording == "off" else report.problem


def as_mobile_sees(
    http: httpx.Client, mobile_url: str, sleep: Callable[[float], None] = time.sleep
) -> dict[str, str] | None:
    """Return the state of each tier that the mobile uses; None if the mobile gives none.

    The first question makes the mobile probe tiers that it has not heard of lately, so that only
    later answers are up to date. It is repeated while a tier is unknown.
    """
    tiers = None
    for asked in range(PROBE_TRIES):
        tiers = fetch_status(http, mobile_url, "/readyz").body.get("tiers")
        if not isinstance(tiers, dict) or (asked > 0 and UNKNOWN not in tiers.values()):
            break
        sleep(PROBE_WAIT_S)
    return {str(name): str(state) for name, state in tiers.items()} if tiers is not None else None


_SEEN: dict[str, str | None] = {
    "ready": None,
    "not used": None,
    "not ready": "is not ready, as the mobile reports",
    "unreachable": "cannot be reached by the mobile",
    "failing": "fails requests, as the mobile reports",
    UNKNOWN: "has not been reached by the mobile yet",
}
"""Problem of a tier in each state that the mobile reports."""


def collect(http: httpx.Client, urls: dict[str, str], guessed: Container[str] = ()) -> Status:
    """Return the status of every process; ``urls`` by name: mobile, edge, cloud, ledger.

    The edge and the cloud may have several addresses with commas; their replicas are then named
    ``cloud-1`` and so on. The addresses of ``guessed`` tiers are defaults: if nothing answers
    there, the mobile is asked.
    """
    processes = {
        name: fetch_status(http, url, "/v1/status" if name == "mobile" else "/readyz")
        for name, url in _each_replica(urls)
    }
    unreachable = [
        name
        for name in (Tier.EDGE.value, Tier.CLOUD.value)
        if name in guessed and name in processes and processes[name].unreachable
    ]
    if unreachable and not processes["mobile"].unreachable:
        seen = as_mobile_sees(http, urls["mobile"])
        for name in unreachable if seen is not None else ():
            state = (seen or {}).get(name, "not used")
            problem = _SEEN.get(state, f"is {state}, as the mobile reports")
            processes[name] = ProcessStatus(processes[name].url, {}, problem, state)
    problems = [
        f"the {name} {process.problem}" for name, process in processes.items() if process.problem
    ]
    problems += [
        f"the {name} has {report.sentence()}"
        for name, process in processes.items()
        if (report := undelivered(process.body)) is not None
    ]
    problems += [
        f"the {name}: {problem}"
        for name, process in processes.items()
        if (problem := outbox_problem(process.body)) is not None
    ]
    if "ledger" in processes and (problem := processes["ledger"].body.get("problem")):
        problems.append(f"the ledger did not store the last delivery: {problem}")
    try:
        mobile = MobileHealth.model_validate(processes["mobile"].body)
    except ValidationError:
        mobile = None
        if processes["mobile"].up:
            problems.append(
                "the mobile runs another version of dimee; install the same version everywhere"
            )
    if mobile is None:
        return Status(processes, None, problems)
    if mobile.degraded:
        problems.append("degraded: the certificate does not hold, and everything goes to the cloud")
    for process_name, process in processes.items():
        if process_name in ("mobile", "ledger"):
            continue
        body = process.body
        for field in ("bundle_id", "certificate_id"):
            tier_value, mobile_value = body.get(field), getattr(mobile, field)
            # a tier may run without a certificate
            if tier_value is not None and tier_value != mobile_value:
                problems.append(
                    f"the {process_name} has the {field} {tier_value}, the mobile "
                    f"{mobile_value or 'none'}"
                )
    return Status(processes, mobile, problems)


def _each_replica(urls: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the address of each process; replicas of a tier are numbered."""
    for name, url in urls.items():
        each = split_addresses(url) if name in (Tier.EDGE.value, Tier.CLOUD.value) else (url,)
        for number, own in enumerate(each, 1):
            yield (name if len(each) == 1 else f"{name}-{number}"), own


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--reset-alarm", is_flag=True, help="First remove the audit results and alarms of this machine."
)
@click.option(
    "--mobile-url",
    envvar="DIMEE_MOBILE_URL",
    help=f"Address of the mobile's gateway.  [default: that of the testbed in the state folder, or "
    f"{DEFAULT_MOBILE_URL}]",
)
@click.option("--edge-url", help="Address of the edge.")
@click.option("--cloud-url", help="Address of the cloud.")
@click.option("--ledger-url", help="Address of the ledger.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="State folder of a running testbed, whose addresses are used; with --reset-alarm that of "
    "the mobile.",
)
def status(
    as_json: bool,
    reset_alarm: bool,
    mobile_url: str | None,
    edge_url: str | None,
    cloud_url: str | None,
    ledger_url: str | None,
    state_dir: Path | None,
) -> None:
    """Show the state of all processes, the certificate, audit results and alarms.

    Addresses that are not given are those of the testbed in the state folder (dimee up). Without
    one, the mobile is asked about an edge or a cloud that cannot be reached from here, such as
    those of docker compose, whose ports are not published.

    Exits with 0 if there is no problem, otherwise with 1.
    """
    settings = load_settings(
        edge_url=edge_url, cloud_url=cloud_url, ledger_url=ledger_url, state_dir=state_dir
    )
    given = {"edge": edge_url, "cloud": cloud_url, "ledger": ledger_url, "mobile": mobile_url}
    urls = {
        "mobile": check_address(mobile_url or DEFAULT_MOBILE_URL, "mobile-url"),
        "edge": settings.edge_url,
        "cloud": settings.cloud_url,
        "ledger": settings.ledger_url,
    }
    testbed = running_addresses(Path(settings.state_dir))
    guessed = set()
    for name in urls:
        if given[name] is None and f"{name}_url" not in settings.model_fields_set:
            if name in testbed:
                urls[name] = testbed[name]
            else:
                guessed.add(name)
    if settings.ledger_url == NO_LEDGER:
        del urls["ledger"]
    credentials = Credentials.of(settings)
    with httpx.Client(
        transport=BoundedTransport(credentials.verify), timeout=TIMEOUT_S, auth=credentials.auth
    ) as http:
        report = collect(http, urls, guessed)
        if reset_alarm:
            certificate_id = report.mobile.certificate_id if report.mobile else None
            _reset(Path(settings.state_dir), certificate_id)
            report = collect(http, urls, guessed)
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        show(report)
    sys.exit(0 if report.healthy else 1)


def _reset(state_dir: Path, certificate_id: str | None) -> None:
    file = monitor_state_file(state_dir, certificate_id)
    removed = StateFile(file).remove() if file.parent.is_dir() else False
    message = "the alarm is reset" if removed else "there was nothing to reset"
    click.echo(f"{message}: {file}", err=True)


def show(report: Status) -> None:
    """Print the status."""
    for name, process in report.processes.items():
        state = "up" if process.up else "down"
        if process.seen_by_mobile == "not used":
            state = "–"
        seen = process.seen_by_mobile
        facts = [
            f"{name:<7} {state:<5} " + (f"{seen}, as the mobile reports" if seen else process.url)
        ]
        if bundle_id := process.body.get("bundle_id"):
            facts.append(f"bundle {bundle_id}")
        for field in ("policy", "store", "layers", "device", "replica"):
            if process.body.get(field):
                facts.append(f"{field} {process.body[field]}")
        if (process.body.get("outbox") or {}).get("recording") == "off":
            facts.append("records nothing (DIMEE_LEDGER_URL=off)")
        _print_line("   ".join(facts))
    if report.mobile is not None:
        _show_mobile(report.mobile)
    for problem in report.problems:
        _print_line(f"problem      {problem}")
    if report.healthy:
        _print_line("healthy")


def _show_mobile(mobile: MobileHealth) -> None:
    if mobile.mode != "auto":
        _print_line(f"mode         {mobile.mode}")
    for tier, replicas in mobile.replicas.items():
        for one in replicas if len(replicas) > 1 else ():
            delay = "" if one.delay_ms is None else f"   {one.delay_ms:.0f} ms"
            _print_line(
                f"replica      {tier} {one.replica or 'unnamed'} at {one.url}: {one.ready}, "
                f"breaker {one.breaker}, {one.outstanding} in progress{delay}"
            )
    for tier, state in mobile.breakers.items():
        if state != "closed":
            effect = "gets no requests" if state == "open" else "gets one request to test it"
            _print_line(f"breaker      {tier} {state}: it failed repeatedly and {effect}")
    _print_line(f"certificate  {mobile.certificate or 'no: the mobile has no certificate'}")
    audits = mobile.audits
    if audits.share > 0:
        _print_line(
            f"audits       {audits.seen:,} answers compared ({audits.share:.2%} of requests), "
            f"{audits.differ:,} differ from the cloud"
            + ("" if audits.disagreement is None else f" ({audits.disagreement:.2%})")
        )
        _print_line(
            f"             {audits.sent:,} sent to the cloud, {audits.failed:,} failed, "
            f"{audits.dropped:,} dropped, {audits.waiting:,} waiting"
        )
    if audits.e_value is not None:
        _print_line(
            f"             e-value against at most {audits.bound:.2%}: {audits.e_value:.3g}; "
            f"the alarm is raised at {audits.alarm_at:g}"
        )
    elif mobile.certificate_id is not None:
        _print_line("             no alarm: the certificate has no bound on disagreement")
    if mobile.shares:
        shares = (
            f"{tier} {'-' if share.now is None else f'{share.now:.1%}'} ({share.calibrated:.1%})"
            for tier, share in mobile.shares.items()
        )
        _print_line(f"shares       {', '.join(shares)}; calibrated shares in brackets")
    if not mobile.alarms:
        _print_line("alarms       none")
    for alarm in mobile.alarms:
        _print_line(
            f"alarm        {alarm.since:%Y-%m-%d %H:%M:%S %Z} {alarm.kind}: {alarm.message}"
        )
    if mobile.degraded and mobile.degraded_since is not None:
        _print_line(f"degraded since {mobile.degraded_since:%Y-%m-%d %H:%M:%S %Z}")


def _print_line(text: str) -> None:
    """Print one line, also if what a process reports has line ends or control characters."""
    click.echo(one_line(text))


def _as_json(report: Status) -> dict[str, Any]:
    processes = {
        name: asdict(process) | {"up": process.up} for name, process in report.processes.items()
    }
    return {
        "healthy": report.healthy,
        "problems": report.problems,
        "mobile": report.mobile.model_dump(mode="json") if report.mobile else None,
        "processes": processes,
    }
