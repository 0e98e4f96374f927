"""``dimee classify``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import click

from mobile_client.cli.batches import batches, classify_rows
from mobile_client.cli.policy_help import POLICY_HELP
from mobile_client.cli.render import header, label_width, legend, marks, row
from mobile_client.cli.text_options import field_options, reader_from_options
from mobile_client.client import MobileClient, load_settings
from mobile_client.options import MODES
from shared.domain import InputText, State
from shared.errors import DimeeError, InvalidInput, TierError
from shared.files import open_stream
from shared.telemetry.tracing import traces
from shared.text import check_text
from shared.text_files import NumberedRow
from shared.user_files import bounded_lines
from shared.wire import Classification


@click.command()
@click.argument("text", nargs=-1)
@click.option(
    "--pair", "pairs", multiple=True, help="Second text of a pair; repeat it, once for each TEXT."
)
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(path_type=Path),
    help="File of texts, in place of TEXT and stdin.",
)
@field_options(labels=False)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON instead of a table: a list for TEXTs; for stdin and a file one object a line. "
    "Each object has its index, from 0, in the order of the input.",
)
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
    texts_file: Path | None,
    as_json: bool,
    policy: str | None,
    bundle: str | None,
    deadline_ms: float | None,
    mode: str | None,
    max_cost_lambda: float | None,
    **options: Any,
) -> None:
    """Classify each TEXT; with - as the only TEXT, read stdin: one text a line.

    The mobile client runs in this process. Texts that the policy sends to the edge or the cloud
    need those servers (dimee up). Pairs on stdin are TSV (text, tab, second text); --input-format
    chooses another format. Only a line feed, or a carriage return and a line feed, ends a line.
    Each text and each line gives one row, also a blank line (except in CSV); a text or line that is
    not valid gives a row with an error, and the others are answered. Lines of a slow pipe or a
    terminal are answered as they arrive. Exits with 1 if a text got no
    answer, and with 2 if the input, or a part of it, is wrong.
    """
    _check_sources(text, pairs, texts_file)
    settings = load_settings(
        policy=policy,
        bundle=bundle,
        deadline_ms=deadline_ms,
        mode=mode,
        max_cost_lambda=max_cost_lambda,
    )
    with ExitStack() as stack:
        stack.enter_context(traces("dimee-classify"))
        mobile = stack.enter_context(MobileClient(settings))
        labels = mobile.bundle.labels
        if texts_file is not None or text == ("-",):
            output = _Output(as_json, label_width(labels), one_a_line=True)
            reader = reader_from_options(mobile.bundle, options, with_labels=False)
            kind = options["input_format"] or reader.format_of(texts_file)
            rows = reader.read(_open(texts_file) if texts_file else _stdin(), kind, blank_rows=True)
            for batch in batches(rows):
                output.add_all(batch, classify_rows(mobile, batch))
            if not output.count:
                source = texts_file or "stdin"
                raise InvalidInput(f"{source}: contains no text; give one text a line")
        else:
            output = _Output(as_json, label_width(labels))
            for batch in batches(_numbered(text, pairs)):
                output.add_all(batch, classify_rows(mobile, batch))
    output.finish()


def _check_sources(text: tuple[str, ...], pairs: tuple[str, ...], file: Path | None) -> None:
    if file is not None and text:
        raise InvalidInput("TEXT: give either TEXT or --texts, not both")
    if file is None and not text:
        raise InvalidInput(
            "TEXT: is missing; give texts, - to read stdin, or --texts to read a file"
        )
    if pairs and (file is not None or text == ("-",)):
        raise InvalidInput("--pair: belongs to a TEXT; a file and stdin hold the pairs themselves")
    if pairs and len(pairs) != len(text):
        raise InvalidInput(f"--pair: {len(pairs)} for {len(text)} texts; give one for each TEXT")


def _open(file: Path) -> Iterator[bytes]:
    """Return the lines of ``file``; raises `InvalidInput` at once if it cannot be opened."""
    try:
        opened = open_stream(file)
    except OSError as error:
        raise InvalidInput(f"texts: {file} cannot be read ({error.strerror})") from None
    return _closed_after(opened)


def _closed_after(opened: BinaryIO) -> Iterator[bytes]:
    with opened:
        yield from bounded_lines(opened)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InvalidInput("stdin: is closed; give one text a line")
    try:
        # not the stream of the interpreter, which the reading thread would lock at its exit
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # a stream without a file
        return sys.stdin.buffer


def _numbered(texts: Sequence[str], pairs: Sequence[str]) -> Iterator[NumberedRow]:
    """Yield the texts of the command line; a wrong one has an error."""
    for number, text in enumerate(texts, start=1):
        row = InputText(_argument(text), _argument(pairs[number - 1]) if pairs else None)
        try:
            check_text(row.text)
            if row.pair is not None:
                check_text(row.pair, "pair")
        except InvalidInput as error:
            message = f"text {number}: {error.message}"
            wrong = type(error)(message, field=error.field, limit=error.limit)
            yield NumberedRow(number, None, wrong, unit="text")
        else:
            yield NumberedRow(number, row, unit="text")


def _argument(text: str) -> str:
    """Return an argument of the command line as UTF-8, which a locale without it does not read."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


class _Output:
    """Prints outcomes as rows or as JSON, and counts those that are no answers.

    ``one_a_line`` prints a JSON object for each row at once, and not a list at the end.
    """

    def __init__(self, as_json: bool, width: int, one_a_line: bool = False) -> None:
        self._as_json = as_json
        self._width = width
        self._one_a_line = one_a_line
        self._list: list[dict[str, Any]] = []
        self._marks: set[str] = set()
        self._substitutes = _Substitutes()
        self._wrong: list[str] = []
        self._failed = self._unserved = False
        self._request_id: str | None = None
        self._asks = ""
        self.count = 0

    def add_all(
        self, rows: Iterable[NumberedRow], outcomes: Iterable[Classification | DimeeError]
    ) -> None:
        """Print the outcomes of ``rows``."""
        for one, outcome in zip(rows, outcomes, strict=True):
            self._add(one, outcome)
        if sys.stdout is not None:
            sys.stdout.flush()

    def _add(self, one: NumberedRow, outcome: Classification | DimeeError) -> None:
        if not self.count and not self._as_json:
            click.echo(header(self._width))
        index = self.count
        self.count += 1
        self._failed |= isinstance(outcome, DimeeError)
        self._unserved |= isinstance(outcome, TierError)
        if isinstance(outcome, InvalidInput) and outcome.message.startswith(f"{one.place}: "):
            self._wrong.append(outcome.message)
        self._substitutes.add(outcome)
        self._request_id = outcome.request_id
        failed = isinstance(outcome, DimeeError)
        self._asks = "its attempts: dimee ledger show" if failed else "why there: dimee explain"
        if not isinstance(outcome, DimeeError):
            self._marks |= set(marks(outcome))
        if not self._as_json:
            shown = one.row or InputText("–")
            click.echo(row(shown.text, outcome, shown.pair, self._width))
        elif self._one_a_line:
            content = {"index": index, "line": one.line} | _as_json(outcome)
            click.echo(json.dumps(content, ensure_ascii=False))
        else:
            self._list.append({"index": index} | _as_json(outcome))

    def finish(self) -> None:
        """Print the summary, and exit with 1 or 2 unless all texts were answered."""
        if self._as_json and not self._one_a_line:
            click.echo(json.dumps(self._list, indent=2, ensure_ascii=False))
        if self._marks and not self._as_json:
            click.echo(legend(self._marks))
        if self.count == 1 and self._request_id and not self._as_json:
            click.echo(f"{self._asks} {self._request_id}")
        if self._substitutes.answers:
            click.echo(self._substitutes.message(), err=True)
        if self._unserved:
            click.echo(
                "dimee: some texts got no answer; is the testbed running? (dimee up)", err=True
            )
        if self._wrong:
            rows = f"{len(self._wrong):,} of {self.count:,} rows are not valid; "
            raise InvalidInput(f"{rows if self.count > 1 else ''}{self._wrong[0]}")
        if self._failed:
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


def _as_json(outcome: Classification | DimeeError) -> dict[str, Any]:
    if isinstance(outcome, DimeeError):
        return outcome.payload()
    return outcome.model_dump(mode="json")
