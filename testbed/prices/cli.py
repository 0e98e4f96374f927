"""``dimee prices``: a price book measured on a running testbed."""

from __future__ import annotations

from pathlib import Path

import click
import httpx

from mobile_client.cli.whatif import PRICES
from mobile_client.client import load_settings
from shared.credentials import Credentials
from shared.domain import Tier
from shared.pricing.live_prices import PriceFile
from testbed.demo import sample_sentences
from testbed.links.client import LinkControl
from testbed.prices.measure import DEADLINE_MS, MeasuredTier, measure_tier, price_file
from testbed.processes.supervisor import read_testbed_file

LINKS_TO = {Tier.EDGE: "mobile-edge", Tier.CLOUD: "mobile-cloud"}


@click.group()
def prices() -> None:
    """Make price books."""


@prices.command()
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Where the testbed keeps its state."
)
@click.option("--url", help="Address of the mobile's gateway, for a testbed without state here.")
@click.option(
    "--requests",
    default=60,
    show_default=True,
    type=click.IntRange(5, 1000),
    help="How many texts each tier answers.",
)
@click.option(
    "--cloud-fee",
    type=click.FloatRange(0, 1e9),
    help="γ in λ; what the cloud's own layers cost if left out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("prices.json"),
    show_default=True,
    help="The price book.",
)
def measure(
    state_dir: Path | None, url: str | None, requests: int, cloud_fee: float | None, out: Path
) -> None:
    """Measure what layers and links cost on a running testbed, and write a price book.

    Sends the sample sentences to each tier, one after the other. One λ is the time of a layer at
    the edge.
    """
    settings = load_settings(state_dir=state_dir)
    links: dict[str, str] = {}
    if url is None:
        facts = read_testbed_file(Path(settings.state_dir))
        url = str(facts["roles"]["mobile"]["url"])
        links = {
            tier.value: str(LinkControl(hop, facts["links"][hop]["control"]).show()["words"])
            for tier, hop in LINKS_TO.items()
            if hop in facts["links"]
        }
    samples = sample_sentences()
    texts = [samples[number % len(samples)] for number in range(requests)]
    shown = Credentials.of(settings)
    with httpx.Client(
        base_url=url,
        trust_env=False,
        timeout=DEADLINE_MS / 1e3 + 10,
        auth=shown.auth,
        verify=shown.verify,
    ) as http:
        measured = {tier: measure_tier(http, tier, texts) for tier in Tier}
    book = price_file(measured, links, cloud_fee)
    click.echo("\n".join(lines(measured, book)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(book.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    click.echo(f"written: {out}; use it with DIMEE_PRICE_BOOK={out} or --price-book {out}")


def lines(measured: dict[Tier, MeasuredTier], book: PriceFile) -> list[str]:
    """Return the measurements and the prices that follow as lines of text."""
    told = [f"{'tier':<8}{'requests':>9}{'ms a layer':>12}{'compute ms':>12}{'network ms':>12}"]
    told += [
        f"{tier:<8}{one.requests:>9}{one.layer_ms:>12.3f}{one.compute_ms:>12.3f}"
        f"{one.network_ms:>12.3f}"
        for tier, one in measured.items()
    ]
    told += ["", f"{'price':<15}{'λ':>10}"]
    for name, what in PRICES.items():
        told.append(f"{name:<15}{getattr(book.cost_model, name):>10.2f}  {what}")
    told.append(
        f"{'latency_price':<15}{book.latency_price_lambda or 0:>10.2f}  A millisecond of waiting."
    )
    return [*told, "", book.version, book.note or ""]
