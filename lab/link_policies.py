"""Policies over emulated links: shares of the tiers, accuracy, cost and latency, measured live.

``python -m lab.link_policies --data ../shared/glue/sst2 --out docs/results/extra/links.json``
starts a testbed for each link profile, sends labelled texts one after the other, and writes the
JSON and the page ``docs/results/links.md``.
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

from lab.data import Example, load_examples
from lab.load.ask import PATH, TIERS
from lab.load.bed import own_bed
from lab.load.report import made_with
from lab.results.text import change, code, number, table
from lab.tasks import get_task
from shared.bundle import load_bundle
from shared.cost import MS_LAMBDA
from shared.credentials import Credentials
from shared.errors import DimeeError, from_payload
from shared.links import LINKS
from shared.policies.value import Value
from shared.service.settings import default_bundle
from shared.wire import ClassifyResponse

PROFILES = ("3g", "4g", "5g", "wifi", "satellite")
POLICIES = (Value.name, "dimee-fixed", "dimee-adaptive")
"""In the order in which a testbed runs them. `value` is first: it weighs the delays that the mobile
has measured, and must not know those of another policy's requests."""
HOPS = ("phone-edge", "phone-cloud")
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
    unlabelled: bool,
    ms_lambda: float = MS_LAMBDA,
) -> dict[str, Any]:
    """Start a testbed with link ``name`` on both hops and run every policy in it.

    ``ms_lambda`` is the price of waiting, in λ a millisecond.
    """
    extra = ("--bundle", str(bundle), *(["--unlabelled"] if unlabelled else []))
    shown = Credentials.from_environment()
    with (
        own_bed(
            dict.fromkeys(HOPS, name), seed, None, extra, {"DIMEE_MS_LAMBDA": str(ms_lambda)}
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


def _off(facts: dict[str, Any]) -> list[str]:
    """A paragraph about links that were not as their profile says, where there are any."""
    off = [
        f"{LINKS[link['link']].title} ({one['hop']})"
        for link in facts["links"]
        for one in link["measured"]
        if not one["holds"]
    ]
    return [f"Off their profile by more than 10 %: {', '.join(off)}.", ""] if off else []


def page(facts: dict[str, Any], source: str) -> str:
    """The results as Markdown."""
    rate = facts["ms_lambda"]
    machine = facts["machine"]
    lines = [
        "# Policies over emulated links",
        "",
        f"{facts['limit']:,} texts of {facts['data']} ({facts['task']}, validation, shuffled with "
        f"seed {facts['seed']}), sent one after the other through a real testbed whose links from "
        "the mobile to edge and cloud have the profile of the row. Latency is what the caller "
        f"waits. The policy `value` weighs waiting at {rate:g} λ a millisecond "
        "([why](../decisions/0010-price-of-waiting.md)); the cost in λ holds no waiting.",
        f"Every number comes from `{source}`; this command writes both:",
        "",
        *code([facts["command"]]),
        "",
        *table(
            ["link", "policy", "mobile / edge / cloud (%)", "accuracy (%)", "cost (λ)",
             "against all-cloud", "p50 (ms)", "p95 (ms)"],
            [
                [
                    LINKS[link["link"]].title,
                    f"`{row['policy']}`",
                    " / ".join(number(share, 0) for share in row["shares"].values()),
                    number(row["accuracy"], 2),
                    number(row["cost_lambda"], 2),
                    "–" if row["cost_change"] is None else change(row["cost_change"], 1) + " %",
                    number(row["p50_ms"], 1),
                    number(row["p95_ms"], 1),
                ]
                for link in facts["links"]
                for row in link["rows"]
            ],
            left=2,
        ),
        "",
        *_off(facts),
        f"Bundle `{facts['bundle_id']}`; made at {facts['made_at']}, commit {facts['commit']}, on "
        f"{machine['cores']} cores, {machine['system']}, load {machine['load_before']:.2f} before. "
        "The tiers share these cores: milliseconds compare within this table only.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", default="../shared/glue/sst2", show_default=True, help="Labelled texts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs/results/extra/links.json"),
    show_default=True,
    help="The JSON.",
)
@click.option(
    "--page",
    "page_file",
    type=click.Path(path_type=Path),
    help="The Markdown page; links.md in the folder above OUT's if left out.",
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
    "--ms-price",
    type=click.FloatRange(0, 1e6),
    default=MS_LAMBDA,
    show_default=True,
    help="λ of waiting a millisecond.",
)
@click.option("--unlabelled", is_flag=True, help="Go on with links that are off their label.")
def main(
    data: str,
    out: Path,
    page_file: Path | None,
    limit: int,
    seed: int,
    links: tuple[str, ...],
    bundle: Path | None,
    ms_price: float,
    unlabelled: bool,
) -> None:
    """Measure the policies over each link, and write the JSON and the page."""
    try:
        loaded = load_bundle(bundle or default_bundle())
        manifest = loaded.manifest
        examples = load_examples(data, get_task(manifest.task), "validation")
        random.Random(seed).shuffle(examples)
        examples = examples[:limit]
        made = made_with()
        arguments = [f"--data {data}", f"--out {out}", f"--limit {limit}", f"--seed {seed}"]
        arguments += [f"--link {name}" for name in links]
        arguments += [] if ms_price == MS_LAMBDA else [f"--ms-price {ms_price:g}"]
        arguments += ["--unlabelled"] if unlabelled else []
        if bundle is not None:
            arguments.append(f"--bundle {bundle}")
        facts: dict[str, Any] = {
            **made,
            "command": " ".join(["python -m lab.link_policies", *arguments]),
            "bundle_id": loaded.bundle_id,
            "task": manifest.task,
            "data": Path(data).name,
            "limit": len(examples),
            "seed": seed,
            "ms_lambda": ms_price,
            "links": [
                study_link(name, examples, manifest.labels, loaded.path, seed, unlabelled, ms_price)
                for name in links or PROFILES
            ],
        }
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page_file = page_file or out.parent.parent / "links.md"
    page_file.write_text(page(facts, f"{out.parent.name}/{out.name}"), encoding="utf-8")
    click.echo(f"written: {out} and {page_file}")


if __name__ == "__main__":
    main()
