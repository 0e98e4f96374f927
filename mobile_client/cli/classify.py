"""``dimee classify``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import click

from mobile_client.cli.policy_help import POLICY_HELP
from mobile_client.cli.render import HEADER, legend, row
from mobile_client.client import MobileClient, load_settings
from mobile_client.options import MODES
from shared.domain import State
from shared.errors import DimeeError, InvalidInput, TierError
from shared.wire import MAX_TEXTS, Classification


@click.command()
@click.argument("text", nargs=-1)
@click.option(
    "--pair", "pairs", multiple=True, help="Second text of a pair; repeat it, once for each TEXT."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option("--policy", metavar="POLICY", help=f"Policy that chooses the tier: {POLICY_HELP}")
@click.option("--bundle", type=click.Path(), help="Folder of the bundle.")
@click.option(
    "--deadline-ms", type=click.FloatRange(1, 60_000), help="Time limit for each answer, in ms."
)
@click.option("--mode", type=click.Choice(MODES), help="Restriction of the tiers that may answer.")
@click.option(
    "--max-cost",
    "max_cost_lambda",
    type=click.FloatRange(min=0, min_open=True),
    help="Largest cost of each request, in λ.",
)
def classify(
    text: tuple[str, ...],
    pairs: tuple[str, ...],
    as_json: bool,
    policy: str | None,
    bundle: str | None,
    deadline_ms: float | None,
    mode: str | None,
    max_cost_lambda: float | None,
) -> None:
    """Classify each TEXT; with - as the only TEXT, read one text a line from stdin.

    The mobile client runs in this process. Texts that the policy sends to the edge or the cloud
    need those servers (dimee up). Exits with 1 if a text got no answer, and with 2 if the input is
    wrong.
    """
    texts = _texts(text)
    settings = load_settings(
        policy=policy,
        bundle=bundle,
        deadline_ms=deadline_ms,
        mode=mode,
        max_cost_lambda=max_cost_lambda,
    )
    results: list[dict[str, Any]] = []
    failed, unserved, substitutes = False, False, _Substitutes()
    classified: list[Classification | DimeeError] = []
    with MobileClient(settings) as mobile:
        if not as_json:
            click.echo(HEADER)
        for start in range(0, len(texts), MAX_TEXTS):
            batch = texts[start : start + MAX_TEXTS]
            batch_pairs = list(pairs[start : start + MAX_TEXTS]) if pairs else None
            for input_text, outcome in zip(
                batch, mobile.classify_many(batch, batch_pairs), strict=True
            ):
                failed |= isinstance(outcome, DimeeError)
                unserved |= isinstance(outcome, TierError)
                substitutes.add(outcome)
                classified.append(outcome)
                if as_json:
                    results.append(_as_json(outcome))
                else:
                    click.echo(row(input_text, outcome))
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif marks := legend(classified):
        click.echo(marks)
    if substitutes.answers:
        click.echo(substitutes.message(), err=True)
    if unserved:
        click.echo("dimee: some texts got no answer; is the testbed running? (dimee up)", err=True)
    if failed:
        sys.exit(1)


@dataclass
class _Substitutes:
    """Counts the answers that the mobile gave in place of a server, and notes the reasons."""

    answers: int = 0
    servers: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.answers > 0

    def add(self, outcome: Classification | DimeeError) -> None:
        if isinstance(outcome, DimeeError) or outcome.degraded_because in (None, "certificate"):
            return
        self.answers += 1
        for attempt in outcome.attempts:
            if attempt.error_code is not None and attempt.state is not State.ANSWERED:
                self.servers[attempt.tier.value] = attempt.error_code.removeprefix("tier_")
        self.servers |= {tier.value: "skipped: unavailable" for tier in outcome.skipped}

    def message(self) -> str:
        servers_by_reason: dict[str, list[str]] = {}
        for server, reason in self.servers.items():
            servers_by_reason.setdefault(reason, []).append(server)
        servers = "; ".join(
            f"{', '.join(servers_with_reason)} ({reason})"
            for reason, servers_with_reason in servers_by_reason.items()
        )
        count = f"{self.answers} answers come" if self.answers > 1 else "1 answer comes"
        return (
            f"dimee: {count} from the mobile because servers did not answer: {servers}; is the "
            "testbed running? (dimee up)"
        )


def _texts(arguments: tuple[str, ...]) -> list[str]:
    if arguments == ("-",):
        raw = sys.stdin.buffer.read()
        try:
            lines = raw.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"stdin: byte {error.start + 1} is not UTF-8") from None
        texts = [line for line in lines if line.strip()]
        if not texts:
            raise InvalidInput("stdin: contains no text; give one text a line")
        return texts
    if not arguments:
        raise InvalidInput("TEXT: is missing; give texts, or - to read one text a line")
    return list(arguments)


def _as_json(outcome: Classification | DimeeError) -> dict[str, Any]:
    if isinstance(outcome, DimeeError):
        return outcome.payload()
    return outcome.model_dump(mode="json")
