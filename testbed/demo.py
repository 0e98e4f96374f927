"""``dimee demo``: run the testbed, classify the sample texts, verify the ledger, name the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import httpx

from mobile_client.cli.render import header, label_width, row
from mobile_client.cli.text_options import field_options
from mobile_client.gateway.examples import classify_body
from shared.domain import InputText
from shared.errors import DimeeError, from_payload
from shared.http_fetch import fetch, json_of
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.ledger.summary_text import displaced_line, print_summary
from shared.signals import set_on_signals
from shared.wire import Classification, ClassifyResponse
from testbed.gateway import gateway_client
from testbed.links.hops import make_hops
from testbed.processes.processes import Testbed
from testbed.processes.supervisor import supervise
from testbed.processes.temporary import temporary_folder
from testbed.texts import texts_for
from testbed.up import describe_bundle, say, testbed_from_options, testbed_options

LINKS = ("mobile-edge=lan", "mobile-cloud=lan")
"""Links of a testbed that stays up, so that its page can slow them down and cut them."""


@click.command()
@testbed_options
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    help="File of texts, with or without labels.  [default: the bundle's samples]",
)
@field_options()
@click.option(
    "--keep/--no-keep",
    default=None,
    help="Keep the testbed running until Ctrl-C, with emulated links that its page can cut.  "
    "[default: in a terminal]",
)
def demo(texts: Path | None, keep: bool | None, **options: Any) -> None:
    """Start the testbed, classify the bundle's sample texts, show the ledger, open the page.

    Each text is a request of its own, sent when the one before it was answered. Where the texts
    have labels, the rows show which answers are right. The page of the gateway then shows what
    happens, until Ctrl-C stops everything.
    """
    if keep is None:
        keep = sys.stdin.isatty() and sys.stdout.isatty()
    bundle = describe_bundle(options)
    to_send = texts_for(bundle, texts, options)
    with temporary_folder("demo") as folder:
        options["state_dir"] = options["state_dir"] or folder
        options["hops"] = make_hops(LINKS) if keep else ()
        with testbed_from_options(options) as testbed:
            click.echo("starting ledger, cloud, edge and mobile …")
            testbed.start_all()
            credentials = testbed.credentials
            url = testbed.roles["ledger"].url
            with closing(LedgerClient(url, credentials=credentials)) as ledger:
                expected = ledger.verify().requests + len(to_send)
                with gateway_client(testbed.roles["mobile"].url, credentials) as http:
                    failed = send_in_turn(http, to_send, label_width(bundle.labels))
                report = wait_for_consistent(ledger, wait_s=10.0, requests=expected)
                click.echo()
                print_summary(ledger.summary())
            click.echo(
                "ledger verify: consistent, both sides of every attempt match"
                if report.consistent
                else f"ledger verify: {report.total_findings} findings"
            )
            failed |= not report.consistent or report.requests != expected
            if keep and not failed:
                _stay_up(testbed)
    say("stopped.")
    if failed:
        raise DimeeError("the demo failed; see the rows above")
    if not keep:
        click.echo(
            f"See it live: make up (or dimee demo --keep), then open "
            f"{testbed.roles['mobile'].url}/ in a browser."
        )


def _stay_up(testbed: Testbed) -> None:
    """Name the page, and run until a signal."""
    with set_on_signals() as stop:
        click.echo(
            f"\nNow open {testbed.roles['mobile'].url}/ in a browser: classify a text, see where "
            "it goes and why,\ncut a link, and watch the fail-over. Ctrl-C stops everything."
        )
        supervise(testbed, stop, None, say, lambda: None)
        say("stopping …")


def send_in_turn(http: httpx.Client, texts: Sequence[InputText], width: int) -> bool:
    """Send one text after the other, print a row for each, and return whether one failed.

    ``width`` is that of the column of labels. The rows of labelled texts end with ``right`` or
    with the label of the text.
    """
    failed, judged, right, answered, displaced = False, 0, 0, 0, 0
    click.echo(header(width) + ("  answer" if any(text.label for text in texts) else ""))
    for text in texts:
        outcome = _outcome(http, text)
        failed |= isinstance(outcome, DimeeError)
        if isinstance(outcome, Classification):
            answered += 1
            displaced += not outcome.from_chosen_tier
        verdict = ""
        if text.label is not None and isinstance(outcome, Classification):
            judged += 1
            correct = outcome.label == text.label
            right += correct
            verdict = "  right" if correct else f"  wrong: {text.label}"
        click.echo(row(text.text, outcome, text.pair, width) + verdict)
    if judged:
        click.echo(displaced_line(displaced, answered))
        click.echo(f"right: {right} of {judged} labelled texts ({right / judged:.1%})")
    return failed


def _outcome(http: httpx.Client, text: InputText) -> Classification | DimeeError:
    """Return the answer to one text, or the error with which its request ended."""
    try:
        response = fetch(http, "POST", "/v1/classify", json=classify_body([text]))
        if response.status_code != httpx.codes.OK:
            raise from_payload(json_of(response), response.status_code)
        (item,) = ClassifyResponse.model_validate_json(response.content).items
    except (httpx.HTTPError, ValueError) as error:  # also pydantic's ValidationError
        raise DimeeError(
            f"the gateway at {http.base_url} gave no answer ({type(error).__name__}); see its log"
        ) from None
    return item.result or from_payload({"error": item.error}, 500)
