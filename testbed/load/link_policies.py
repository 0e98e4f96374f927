"""Study of policies over emulated links: tier shares, accuracy, cost and latency.

``python -m testbed.load.link_policies --data ../shared/glue/sst2 --text-field sentence --out
docs/results/extra/links.json`` starts a testbed for each link profile, sends labelled texts one
after the other, and writes the JSON; ``make results`` writes its page.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
import numpy as np

from mobile_client.cli.text_options import field_options
from shared.bundle.description import describe
from shared.bundle.loading import load_bundle
from shared.credentials import Credentials
from shared.domain import InputText
from shared.errors import DimeeError, from_payload
from shared.http_fetch import parse_json
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA
from shared.program import run_program
from shared.settings import default_bundle
from shared.wire import ClassifyResponse
from testbed.load.generator import send_in_turn
from testbed.load.http_client import Answer, HttpClient, run
from testbed.load.provenance import provenance
from testbed.load.sample import PATH, TIERS, request_body
from testbed.load.target import start_testbed
from testbed.texts import read_labelled_texts

PROFILES = ("3g", "4g", "5g", "wifi", "satellite")
POLICIES = (CascadeRouting.name, "dimee-fixed", "dimee-adaptive")
"""In the order in which a testbed runs them. Cascade routing is first: it uses delays that the
mobile has measured, which must not come from the requests of another policy."""
HOPS = ("mobile-edge", "mobile-cloud")
DEADLINE_MS = 20_000.0


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """Outcome of one request: answering tier, correctness of the label, latency and cost."""

    tier: str
    correct: bool
    latency_ms: float
    cost_lambda: float
    all_cloud_lambda: float
    from_chosen_tier: bool = True


def classify(client: HttpClient, texts: Sequence[InputText], policy: str) -> list[PolicyAnswer]:
    """Send each text when the one before it was answered; raises `DimeeError` if one fails."""
    bodies = [json.dumps(request_body(text, policy, DEADLINE_MS)).encode() for text in texts]
    answers = run(send_in_turn(client, bodies, DEADLINE_MS / 1e3 + 10))
    return [_outcome(answer, text.label) for answer, text in zip(answers, texts, strict=True)]


def _outcome(answer: Answer, label: str | None) -> PolicyAnswer:
    if answer.status == 0:
        raise DimeeError(f"the gateway did not answer ({answer.error}); see the testbed's logs")
    if answer.status != HTTPStatus.OK:
        raise from_payload(parse_json(answer.body), answer.status)
    try:
        (item,) = ClassifyResponse.model_validate_json(answer.body).items
    except ValueError:  # also pydantic's ValidationError
        raise DimeeError("the gateway answered in an unknown format; correct its address") from None
    if item.result is None:
        raise from_payload({"error": item.error}, 500)
    cost = item.result.cost
    return PolicyAnswer(
        item.result.tier.value,
        item.result.label == label,
        answer.latency_s * 1e3,
        cost.cost_lambda,
        cost.all_cloud_lambda,
        item.result.from_chosen_tier,
    )


def summarize(policy: str, answers: Sequence[PolicyAnswer]) -> dict[str, Any]:
    """Return a row: shares and accuracy in %, cost in λ and against all-cloud, latency in ms."""
    latency_N = [answer.latency_ms for answer in answers]
    cost = sum(answer.cost_lambda for answer in answers)
    all_cloud = sum(answer.all_cloud_lambda for answer in answers)
    p50, p95 = np.percentile(latency_N, (50, 95))
    return {
        "policy": policy,
        "not_from_chosen_tier": sum(not answer.from_chosen_tier for answer in answers),
        "requests": len(answers),
        "shares": {
            tier: round(100 * sum(answer.tier == tier for answer in answers) / len(answers), 2)
            for tier in TIERS
        },
        "accuracy": round(100 * sum(answer.correct for answer in answers) / len(answers), 2),
        "cost_lambda": round(cost / len(answers), 4),
        "cost_change": round(100 * (cost / all_cloud - 1), 2) if all_cloud else None,
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
    }


def study_link(
    name: str,
    texts: Sequence[InputText],
    bundle: Path,
    seed: int,
    allow_unverified: bool,
    latency_price_lambda: float = LATENCY_PRICE_LAMBDA,
) -> dict[str, Any]:
    """Start a testbed with link ``name`` to edge and cloud, and run every policy in it.

    ``latency_price_lambda`` is the price of waiting, in λ a millisecond.
    """
    options = ("--bundle", str(bundle), *(["--allow-unverified"] if allow_unverified else []))
    settings = {"DIMEE_LATENCY_PRICE_LAMBDA": str(latency_price_lambda)}
    links = dict.fromkeys(HOPS, name)
    with start_testbed(links, seed, options=options, settings=settings) as target:
        client = HttpClient(target.url, PATH, Credentials.from_environment())
        rows = []
        for policy in POLICIES:
            rows.append(summarize(policy, classify(client, texts, policy)))
            click.echo(f"  {name} {_line(rows[-1])}")
        return {"link": name, "measured": list(target.measurements), "rows": rows}


def _line(row: dict[str, Any]) -> str:
    shares = "/".join(f"{share:.0f}" for share in row["shares"].values())
    saving = "" if row["cost_change"] is None else f" ({row['cost_change']:+.1f} %)"
    return (
        f"{row['policy']:<15} not from the chosen tier {row['not_from_chosen_tier']}  "
        f"{shares:>9} %  accuracy {row['accuracy']:.2f} %  "
        f"{row['cost_lambda']:.2f} λ{saving}  "
        f"p50 {row['p50_ms']:.1f} ms  p95 {row['p95_ms']:.1f} ms"
    )


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/glue/sst2"),
    show_default=True,
    help="Folder with validation.jsonl, or a file of labelled texts.",
)
@field_options()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs/results/extra/links.json"),
    show_default=True,
    help="Write the figures to this JSON file.",
)
@click.option(
    "--limit",
    default=200,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Number of texts.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the texts' order and the links."
)
@click.option(
    "--link",
    "links",
    multiple=True,
    type=click.Choice(PROFILES),
    help="Link profile, repeatable.  [default: all]",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="DIMEE_BUNDLE",
    help="Folder of the model bundle.",
)
@click.option(
    "--latency-price",
    type=click.FloatRange(0, 1e6),
    default=LATENCY_PRICE_LAMBDA,
    show_default=True,
    help="Price of waiting in λ a millisecond.",
)
@click.option(
    "--allow-unverified", is_flag=True, help="Accept links that deviate by more than 10 %."
)
def main(
    data: Path,
    out: Path,
    limit: int,
    seed: int,
    links: tuple[str, ...],
    bundle: Path | None,
    latency_price: float,
    allow_unverified: bool,
    **fields: str | None,
) -> None:
    """Measure the policies over each link, and write the figures."""
    origin = provenance()
    command = ["python -m testbed.load.link_policies", f"--data {data}", f"--out {out}"]
    command += [f"--limit {limit}", f"--seed {seed}", *(f"--link {name}" for name in links)]
    command += [f"--{name.replace('_', '-')} {value}" for name, value in fields.items() if value]
    if latency_price != LATENCY_PRICE_LAMBDA:
        command.append(f"--latency-price {latency_price:g}")
    if allow_unverified:
        command.append("--allow-unverified")
    if bundle is not None:
        command.append(f"--bundle {bundle}")
    try:
        loaded = load_bundle(bundle or default_bundle())
        texts = read_labelled_texts(data, describe(loaded), fields)
        random.Random(seed).shuffle(texts)
        texts = texts[:limit]
        facts: dict[str, Any] = {
            **origin,
            "command": " ".join(command),
            "bundle_id": loaded.bundle_id,
            "task": loaded.manifest.task,
            "data": data.name,
            "limit": len(texts),
            "seed": seed,
            "latency_price_lambda": latency_price,
            "links": [
                study_link(name, texts, loaded.path, seed, allow_unverified, latency_price)
                for name in links or PROFILES
            ],
        }
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(f"written: {out}; make results writes its page")


if __name__ == "__main__":
    run_program(main)
