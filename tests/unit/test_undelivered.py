"""Entries that are not delivered for a minute: report, log, reasons, and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.ledger.undelivered import WARNING_S, DeliveryWatch, UndeliveredReport
from shared.settings import BundleSettings
from tests.support.clock import Clock
from tests.support.entries import caller, tier
from tests.support.http_server import HttpServer, in_turn, response
from tests.support.paths import free_ports

FLUSH_S = 20.0
STORED = response(200, b'{"stored": 2, "duplicates": 0}')
REJECTED = b'{"error": {"code": "invalid_input", "message": "no"}}'


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    claimed = Outbox.claim(tmp_path / "outbox", "mobile")
    claimed.record(caller(), tier())
    yield claimed
    claimed.close()


def problem_at(url: str, outbox: Outbox, flush_s: float = FLUSH_S) -> str:
    """Return the problem that a shipper reports after a failed delivery to ``url``."""
    shipper = Shipper(outbox, url, warning_s=0.0)
    assert not shipper.flush(flush_s)
    assert not shipper.flush(flush_s)
    report = shipper.undelivered()
    shipper.close(0.0)
    assert report is not None
    assert report.undelivered == 2
    return report.problem


def test_report_begins_after_a_minute_and_ends_with_a_delivery(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    clock, failing = Clock(), response(503)

    async def play() -> None:
        answers = in_turn([failing] * 4 + [STORED])
        async with HttpServer(answers) as server:
            shipper = Shipper(outbox, server.url, clock=clock)
            for seconds in (0.0, WARNING_S - 0.1, 0.1, 15.0):
                clock.now += seconds
                assert not await asyncio.to_thread(shipper.flush, FLUSH_S)
                reports.append(shipper.undelivered())
            clock.now += 2.5
            reports.append(shipper.undelivered())
            assert await asyncio.to_thread(shipper.flush, FLUSH_S)
            reports.append(shipper.undelivered())
            await asyncio.to_thread(shipper.close, 1.0)
            url.append(server.url)

    reports: list[UndeliveredReport | None] = []
    url: list[str] = []
    asyncio.run(play())
    problem = "it cannot store entries now (status 503)"
    assert [report and report.waiting_s for report in reports] == [None, None, 60, 75, 77.5, None]
    assert reports[3] == UndeliveredReport(undelivered=2, waiting_s=75, url=url[0], problem=problem)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            f"2 ledger entries undelivered for 60 s: {url[0]}: {problem}; requests are answered as "
            "before, and the entries stay in the outbox",
        ),
        ("WARNING", "the ledger accepts this process again; the outbox is delivered"),
    ]


def test_each_delivery_restarts_the_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    watch = DeliveryWatch("http://ledger:8700", lambda: 3, clock=clock)
    for _ in range(5):
        watch.failed("connection refused")
        clock.now += WARNING_S - 1
        watch.failed("connection refused")
        assert not watch.succeeded()
    assert watch.report() is None
    assert not caplog.records


def test_entry_that_the_ledger_rejects_is_reported_as_rejected(outbox: Outbox) -> None:
    clock = Clock()

    async def play() -> None:
        async with HttpServer(in_turn([response(503), response(422, REJECTED)])) as server:
            shipper = Shipper(outbox, server.url, clock=clock, warning_s=1.0)
            assert not await asyncio.to_thread(shipper.flush, FLUSH_S)
            clock.now += 2.0
            assert await asyncio.to_thread(shipper.flush, FLUSH_S)
            report = shipper.undelivered()
            assert report is not None
            assert (report.undelivered, report.rejected) == (0, 2)
            await asyncio.to_thread(shipper.close, 1.0)

    asyncio.run(play())
    assert outbox.count_pending() == 0


def test_nothing_is_reported_while_nothing_waits(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "edge")
    shipper = Shipper(outbox, f"http://127.0.0.1:{free_ports(1)[0]}", warning_s=0.0)
    assert shipper.flush(1.0)
    assert shipper.undelivered() is None
    shipper.close(0.0)
    outbox.close()


def test_problem_of_a_ledger_without_a_process(outbox: Outbox) -> None:
    assert problem_at(f"http://127.0.0.1:{free_ports(1)[0]}", outbox) == "connection refused"


def test_problem_of_a_name_that_does_not_exist(outbox: Outbox) -> None:
    assert problem_at("http://ledger.invalid:8700", outbox) == "its host name cannot be resolved"


def test_problem_of_a_wrong_scheme(outbox: Outbox) -> None:
    assert "neither http:// nor https://" in problem_at("ledger:8700", outbox)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "rejects this process's token (status 401)"),
        (403, "rejects this process's token (status 403)"),
        (404, "does not accept entries (status 404); check DIMEE_LEDGER_URL"),
        (429, "limits this process's rate (status 429)"),
        (500, "cannot store entries now (status 500)"),
    ],
)
def test_problem_of_a_status(outbox: Outbox, status: int, words: str) -> None:
    body = b'{"error": {"message": "token s3cret"}}'

    async def play() -> str:
        async with HttpServer(in_turn([response(status, body)])) as server:
            return await asyncio.to_thread(problem_at, server.url, outbox)

    assert asyncio.run(play()) == f"it {words}"


def test_problem_of_a_certificate_that_is_not_trusted(outbox: Outbox) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def play() -> str:
        async with HttpServer(in_turn([response()]), context) as server:
            return await asyncio.to_thread(problem_at, server.url, outbox)

    assert asyncio.run(play()) == "its TLS certificate is not trusted; set DIMEE_TLS_CA"


@pytest.mark.parametrize(
    ("said", "scheme", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "https", "the TLS connection failed; check http or"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "http", "the connection broke"),
        (b"", "http", "it does not answer in time"),
    ],
)
def test_problem_of_another_program_at_the_address(
    outbox: Outbox, said: bytes, scheme: str, problem: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(server.accept()[0])
                    accepted[-1].sendall(said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        assert problem_at(url, outbox, 0.5 if not said else FLUSH_S).startswith(problem)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()


def test_url_is_shown_without_credentials(caplog: pytest.LogCaptureFixture) -> None:
    url = "https://me:s3cret@ledger.example:8700/base?key=s3cret#s3cret"
    watch = DeliveryWatch(url, lambda: 1, warning_s=0.0)
    watch.failed("connection refused")
    watch.failed("connection refused")
    report = watch.report()
    assert report is not None
    assert report.url == "https://ledger.example:8700/…"
    assert report.sentence().startswith("1 ledger entry undelivered for 0 s: https://ledger")
    assert "s3cret" not in caplog.text


def test_count_stops_at_its_limit(outbox: Outbox) -> None:
    assert [outbox.count_pending(limit) for limit in (1, 2, 3)] == [1, 2, 2]


def test_default_is_a_minute() -> None:
    assert BundleSettings.model_fields["undelivered_warning_s"].default == WARNING_S == 60.0
