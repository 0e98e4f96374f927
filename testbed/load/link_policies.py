"""Policies over emulated links: shares of the tiers, accuracy, cost and latency, measured live.

``python -m testbed.load.link_policies --data ../shared/glue/sst2 --out
docs/results/extra/links.json`` starts a testbed for each link profile, sends labelled texts one
after the other, and writes the JSON. ``make results`` makes the page of it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from lab.data.examples import Example, load_examples
from lab.data.tasks import get_task
from shared.bundle.loading import load_bundle
from shared.credentials import Credentials
from shared.errors import DimeeError, from_payload
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA
from shared.settings import default_bundle
from shared.wire import ClassifyResponse
from testbed.load.exchange import PATH, TIERS
from testbed.load.report import made_with
from testbed.load.target import own_bed

PROFILES = ("3g", "4g", "5g", "wifi", "satellite")
POLICIES = (CascadeRouting.name, "dimee-fixed", "dimee-adaptive")
"""In the order in which a testbed runs them. Cascade routing is first: it weighs delays that the
mobile has measured, and must not know those of another policy's requests."""
HOPS = ("mobile-edge", "mobile-cloud")
DEADLINE_MS = 20_000.0


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: the tier that answered, whether it was right, its latency and its cost."""

    tier: str
    right: bool
    latency_ms: float
    cost_lambda: float
    all_cloud_lambda: float


def send_in_turn(
    http: httpx.Client, examples: Sequence[Example], labels: Sequence[str], policy: str
) -> list[Answered]:
    """Send each example when the one before it is answered; raises `DimeeError` if one fails."""
    answers = []
    for example in examples:
        body: dict[str, Any] = {
            "texts": [example.text],
            "policy": policy,
            "deadline_ms": DEADLINE_MS,
        }
        if example.pair is not None:
            body["pairs"] = [example.pair]
        started = time.perf_counter()
        response = http.post(PATH, json=body)
        latency_ms = (time.perf_counter() - started) * 1e3
        if response.status_code != httpx.codes.OK:
            raise from_payload(response.json(), response.status_code)
        item = ClassifyResponse.model_validate_json(response.content).items[0]
        if item.result is None:
            raise from_payload({"error": item.error}, 500)
        answers.append(
            Answered(
                item.result.tier.value,
                item.result.label == labels[example.label],
                latency_ms,
                item.result.cost.cost_lambda,
                item.result.cost.all_cloud_lambda,
            )
        )
    return answers


def summarize(policy: str, answers: Sequence[Answered]) -> dict[str, Any]:
    """One row: shares and accuracy in percent, cost in λ and against all-cloud, latency in ms."""
    latency_N = [one.latency_ms for one in answers]
    cost = sum(one.cost_lambda for one in answers)
    all_cloud = sum(one.all_cloud_lambda for one in answers)
    p50, p95 = np.percentile(latency_N, (50, 95))
    return {
        "policy": policy,
        "requests": len(answers),
        "shares": {
            tier: round(100 * sum(one.tier == tier for one in answers) / len(answers), 2)
            for tier in TIERS
        },
        "accuracy": round(100 * sum(one.right for one in answers) / len(answers), 2),
        "cost_lambda": round(cost / len(answers), 4),
        "cost_change": round(100 * (cost / all_cloud - 1), 2) if all_cloud else None,
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
    }


def study_link(
    name: str,
    examples: Sequence[Example],
    labels: Sequence[str],
    bundle: Path,
    seed: int,
    allow_unverified: bool,
    latency_price_lambda: float = LATENCY_PRICE_LAMBDA,
) -> dict[str, Any]:
    """Start a testbed with link ``name`` on both hops and run every policy in it.

    ``latency_price_lambda`` is the price of waiting, in λ a millisecond.
    """
    extra = ("--bundle", str(bundle), *(["--allow-unverified"] if allow_unverified else []))
    shown = Credentials.from_environment()
    with (
        own_bed(
            dict.fromkeys(HOPS, name),
            seed,
            None,
            extra,
            {"DIMEE_LATENCY_PRICE_LAMBDA": str(latency_price_lambda)},
        ) as bed,
        httpx.Client(
            base_url=bed.url,
            trust_env=False,
            timeout=DEADLINE_MS / 1e3 + 10,
            auth=shown.auth,
            verify=shown.verify,
        ) as http,
    ):
        rows = []
        for policy in POLICIES:
            rows.append(summarize(policy, send_in_turn(http, examples, labels, policy)))
            click.echo(f"  {name} {_line(rows[-1])}")
        return {"link": name, "measured": list(bed.measured), "rows": rows}


def _line(row: dict[str, Any]) -> str:
    shares = "/".join(f"{share:.0f}" for share in row["shares"].values())
    saving = "" if row["cost_change"] is None else f" ({row['cost_change']:+.1f} %)"
    return (
        f"{row['policy']:<15} {shares:>9} %  accuracy {row['accuracy']:.2f} %  "
        f"{row['cost_lambda']:.2f} λ{saving}  "
        f"p50 {row['p50_ms']:.1f} ms  p95 {row['p95_ms']:.1f} ms"
    )


@click.command()
@click.option("--data", default="../shared/glue/sst2", show_default=True, help="Labelled texts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs/results/extra/links.json"),
    show_default=True,
    help="The JSON.",
)
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--seed", default=0, show_default=True, help="Of the order and of the links.")
@click.option(
    "--link", "links", multiple=True, type=click.Choice(PROFILES), help="All if left out."
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="DIMEE_BUNDLE",
    help="Folder of the model's bundle.",
)
@click.option(
    "--latency-price",
    type=click.FloatRange(0, 1e6),
    default=LATENCY_PRICE_LAMBDA,
    show_default=True,
    help="λ of waiting a millisecond.",
)
@click.option("--allow-unverified", is_flag=True, help="Go on with links that are off their label.")
def main(
    data: str,
    out: Path,
    limit: int,
    seed: int,
    links: tuple[str, ...],
    bundle: Path | None,
    latency_price: float,
    allow_unverified: bool,
) -> None:
    """Measure the policies over each link, and write the JSON."""
    try:
        loaded = load_bundle(bundle or default_bundle())
        manifest = loaded.manifest
        examples = load_examples(data, get_task(manifest.task), "validation")
        random.Random(seed).shuffle(examples)
        examples = examples[:limit]
        made = made_with()
        arguments = [f"--data {data}", f"--out {out}", f"--limit {limit}", f"--seed {seed}"]
        arguments += [f"--link {name}" for name in links]
        arguments += (
            [] if latency_price == LATENCY_PRICE_LAMBDA else [f"--latency-price {latency_price:g}"]
        )
        arguments += ["--allow-unverified"] if allow_unverified else []
        if bundle is not None:
            arguments.append(f"--bundle {bundle}")
        facts: dict[str, Any] = {
            **made,
            "command": " ".join(["python -m testbed.load.link_policies", *arguments]),
            "bundle_id": loaded.bundle_id,
            "task": manifest.task,
            "data": Path(data).name,
            "limit": len(examples),
            "seed": seed,
            "latency_price_lambda": latency_price,
            "links": [
                study_link(
                    name,
                    examples,
                    manifest.labels,
                    loaded.path,
                    seed,
                    allow_unverified,
                    latency_price,
                )
                for name in links or PROFILES
            ],
        }
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(f"written: {out}; make results writes its page")


if __name__ == "__main__":
    main()
