"""``dimee demo``: start the testbed, classify sixty sentences, verify the ledger, stop."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import httpx

from mobile_client.cli.render import HEADER, row
from shared.errors import DimeeError, from_payload
from shared.ledger.cli import print_summary, wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.wire import Classification, ClassifyItem, ClassifyResponse
from testbed.up import testbed_from_options, testbed_options


def sample_sentences() -> list[str]:
    """Return the sentences in ``samples.txt``, from easy to hard; they were written for dimee."""
    text = files("testbed").joinpath("samples.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@click.command()
@testbed_options
def demo(**options: Any) -> None:
    """Start the testbed, classify the sample sentences, show the ledger, stop everything.

    Each sentence is a request of its own, sent when the one before it was answered.
    """
    with tempfile.TemporaryDirectory(prefix="dimee-demo-") as folder:
        options["state_dir"] = options["state_dir"] or Path(folder)
        with testbed_from_options(options) as testbed:
            click.echo("starting ledger, cloud, edge and mobile …")
            testbed.start_all()
            click.echo(HEADER)
            credentials = testbed.credentials
            texts = sample_sentences()
            with httpx.Client(
                base_url=testbed.roles["mobile"].url,
                trust_env=False,
                timeout=60.0,
                auth=credentials.auth,
                verify=credentials.verify,
            ) as http:
                failed = send_in_turn(http, texts)
            ledger = LedgerClient(testbed.roles["ledger"].url, credentials=credentials)
            sent = len(texts)
            report = wait_for_consistent(ledger, wait_s=10.0, requests=sent)
            click.echo()
            print_summary(ledger.summary())
            click.echo(
                "ledger verify: consistent, both sides of every attempt match"
                if report.consistent
                else f"ledger verify: {report.total_findings} findings"
            )
    click.echo("stopped.")
    if failed or not report.consistent or report.requests != sent:
        raise DimeeError("the demo failed; see the rows above")


def send_in_turn(http: httpx.Client, texts: list[str]) -> bool:
    """Send one text after the other, print a row for each, and return whether one failed."""
    failed = False
    for text in texts:
        response = http.post("/v1/classify", json={"texts": [text]})
        if response.status_code != httpx.codes.OK:
            raise from_payload(response.json(), response.status_code)
        answer = ClassifyResponse.model_validate_json(response.content)
        outcome = _outcome(answer.items[0])
        failed |= isinstance(outcome, DimeeError)
        click.echo(row(text, outcome))
    return failed


def _outcome(item: ClassifyItem) -> Classification | DimeeError:
    if item.result is not None:
        return item.result
    return from_payload({"error": item.error}, 500)
