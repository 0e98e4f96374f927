"""``dimee prices``: measure a price book on a running testbed."""

from __future__ import annotations

from pathlib import Path

import click

from mobile_client.cli.text_options import field_options
from mobile_client.cli.whatif import PRICES
from mobile_client.client import load_settings
from shared.credentials import Credentials
from shared.domain import Tier
from shared.link_control import LinkControl
from shared.pricing.live_prices import PriceFile
from shared.testbed_file import read_testbed_file
from testbed.gateway import fetch_bundle, gateway_client
from testbed.prices.measure import DEADLINE_MS, MeasuredTier, measure_tier, price_file
from testbed.texts import texts_for

LINKS_TO = {Tier.EDGE: "mobile-edge", Tier.CLOUD: "mobile-cloud"}


@click.group()
def prices() -> None:
    """Make price books."""


@prices.command()
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="State folder of the running testbed."
)
@click.option("--url", help="Address of the mobile's gateway, in place of --state-dir.")
@click.option(
    "--requests",
    default=60,
    show_default=True,
    type=click.IntRange(5, 1000),
    help="Number of texts that each tier answers.",
)
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(path_type=Path),
    help="File of texts.  [default: the bundle's samples]",
)
@field_options(labels=False)
@click.option(
    "--cloud-fee",
    type=click.FloatRange(0, 1e9),
    help="Cloud fee γ in λ.  [default: the cost of the cloud's own layers]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("prices.json"),
    show_default=True,
    help="Write the price book to this file.",
)
def measure(
    state_dir: Path | None,
    url: str | None,
    requests: int,
    texts_file: Path | None,
    cloud_fee: float | None,
    out: Path,
    **fields: str | None,
) -> None:
    """Measure the cost of layers and links on a running testbed, and write a price book.

    Sends texts to each tier, one after the other. One λ is the time of one layer on
    the edge.
    """
    settings = load_settings(state_dir=state_dir)
    links: dict[str, str] = {}
    if url is None:
        facts = read_testbed_file(Path(settings.state_dir))
        url = str(facts["roles"]["mobile"]["url"])
        links = {
            tier.value: str(LinkControl(hop, facts["links"][hop]["control"]).report()["spec"])
            for tier, hop in LINKS_TO.items()
            if hop in facts["links"]
        }
    credentials = Credentials.of(settings)
    with gateway_client(url, credentials, DEADLINE_MS / 1e3 + 10) as http:
        samples = texts_for(fetch_bundle(http), texts_file, fields)
        texts = [samples[number % len(samples)] for number in range(requests)]
        measured = {tier: measure_tier(http, tier, texts) for tier in Tier}
    book = price_file(measured, links, cloud_fee)
    click.echo("\n".join(report_lines(measured, book)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(book.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    click.echo(f"written: {out}; use it with DIMEE_PRICE_BOOK={out} or --price-book {out}")


def report_lines(measured: dict[Tier, MeasuredTier], book: PriceFile) -> list[str]:
    """Return the measurements and the prices that follow as lines of text."""
    lines = [f"{'tier':<8}{'requests':>9}{'ms a layer':>12}{'compute ms':>12}{'network ms':>12}"]
    lines += [
        f"{tier:<8}{figures.requests:>9}{figures.layer_ms:>12.3f}{figures.compute_ms:>12.3f}"
        f"{figures.network_ms:>12.3f}"
        for tier, figures in measured.items()
    ]
    lines += ["", f"{'price':<22}{'λ':>10}"]
    for name, meaning in PRICES.items():
        lines.append(f"{name:<22}{getattr(book.cost_model, name):>10.2f}  {meaning}")
    lines.append(
        f"{'latency_price_lambda':<22}{book.latency_price_lambda or 0:>10.2f}"
        "  A millisecond of waiting."
    )
    return [*lines, "", book.version, book.note or ""]
