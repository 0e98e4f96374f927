"""``dimee classify``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from mobile_client.client import MobileClient, load_settings
from mobile_client.render import HEADER, row
from shared.errors import DimeeError, InvalidInput
from shared.policies import POLICY_NAMES
from shared.wire import MAX_TEXTS, Classification


@click.command()
@click.argument("text", nargs=-1)
@click.option("--pair", "pairs", multiple=True, help="Second text, one for each TEXT.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of rows.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), help="Who decides the tier.")
@click.option("--bundle", type=click.Path(), help="Folder of the model's bundle.")
@click.option("--deadline-ms", type=click.FloatRange(1, 60_000), help="Time for each answer.")
def classify(
    text: tuple[str, ...],
    pairs: tuple[str, ...],
    as_json: bool,
    policy: str | None,
    bundle: str | None,
    deadline_ms: float | None,
) -> None:
    """Classify TEXTs; a lone - reads one text a line.

    Runs a phone in this process. Answers that the policy places on the edge or in the cloud need
    those servers (dimee up); exits with 1 if a text got no answer, with 2 if the input is wrong.
    """
    texts = _texts(text)
    settings = load_settings(policy=policy, bundle=bundle, deadline_ms=deadline_ms)
    results: list[dict[str, Any]] = []
    failed = False
    with MobileClient(settings) as phone:
        if not as_json:
            click.echo(HEADER)
        for start in range(0, len(texts), MAX_TEXTS):
            part = texts[start : start + MAX_TEXTS]
            part_pairs = list(pairs[start : start + MAX_TEXTS]) if pairs else None
            for one, outcome in zip(part, phone.classify_many(part, part_pairs), strict=True):
                failed |= isinstance(outcome, DimeeError)
                if as_json:
                    results.append(_as_json(outcome))
                else:
                    click.echo(row(one, outcome))
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif any(r for r in results):
        click.echo()
    if failed:
        click.echo("dimee: some texts got no answer; is the testbed running? (dimee up)", err=True)
        sys.exit(1)


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
