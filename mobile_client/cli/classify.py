"""``dimee classify``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import click

from mobile_client.cli.render import HEADER, row
from mobile_client.client import MobileClient, load_settings
from mobile_client.options import MODES
from shared.domain import State
from shared.errors import DimeeError, InvalidInput, TierError
from shared.policies import POLICY_NAMES
from shared.wire import MAX_TEXTS, Classification


@click.command()
@click.argument("text", nargs=-1)
@click.option("--pair", "pairs", multiple=True, help="Second text, one for each TEXT.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of rows.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), help="Who decides the tier.")
@click.option("--bundle", type=click.Path(), help="Folder of the model's bundle.")
@click.option("--deadline-ms", type=click.FloatRange(1, 60_000), help="Time for each answer.")
@click.option("--mode", type=click.Choice(MODES), help="Where texts may go.")
@click.option(
    "--max-cost", "max_cost_lambda", type=click.FloatRange(min=0, min_open=True), help="λ for each."
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
    """Classify TEXTs; a lone - reads one text a line.

    Runs a mobile in this process. Answers that the policy places on the edge or in the cloud need
    those servers (dimee up); exits with 1 if a text got no answer, with 2 if the input is wrong.
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
    failed, unserved, missed = False, False, _Missed()
    with MobileClient(settings) as mobile:
        if not as_json:
            click.echo(HEADER)
        for start in range(0, len(texts), MAX_TEXTS):
            part = texts[start : start + MAX_TEXTS]
            part_pairs = list(pairs[start : start + MAX_TEXTS]) if pairs else None
            for one, outcome in zip(part, mobile.classify_many(part, part_pairs), strict=True):
                failed |= isinstance(outcome, DimeeError)
                unserved |= isinstance(outcome, TierError)
                missed.see(outcome)
                if as_json:
                    results.append(_as_json(outcome))
                else:
                    click.echo(row(one, outcome))
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif any(r for r in results):
        click.echo()
    if missed:
        click.echo(missed.sentence(), err=True)
    if unserved:
        click.echo("dimee: some texts got no answer; is the testbed running? (dimee up)", err=True)
    if failed:
        sys.exit(1)


@dataclass
class _Missed:
    """Answers of the mobile that were to be a server's, and how the servers' attempts ended."""

    answers: int = 0
    servers: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.answers > 0

    def see(self, outcome: Classification | DimeeError) -> None:
        if isinstance(outcome, DimeeError) or outcome.degraded_because in (None, "certificate"):
            return
        self.answers += 1
        for one in outcome.attempts:
            if one.error_code is not None and one.state is not State.ANSWERED:
                self.servers[one.tier.value] = one.error_code.removeprefix("tier_")
        self.servers |= {tier.value: "left alone" for tier in outcome.skipped}

    def sentence(self) -> str:
        names: dict[str, list[str]] = {}
        for server, why in self.servers.items():
            names.setdefault(why, []).append(server)
        who = "; ".join(f"{', '.join(found)} ({why})" for why, found in names.items())
        many = "answers are" if self.answers > 1 else "answer is"
        return (
            f"dimee: {self.answers} {many} the mobile's own: {who}; is the testbed running? "
            "(dimee up)"
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
            raise InvalidInput("stdin: held no text; give one text a line")
        return texts
    if not arguments:
        raise InvalidInput("TEXT: is missing; give texts, or - to read one text a line")
    return list(arguments)


def _as_json(outcome: Classification | DimeeError) -> dict[str, Any]:
    if isinstance(outcome, DimeeError):
        return outcome.payload()
    return outcome.model_dump(mode="json")
