"""Every error has the same body format, which contains neither the input nor internals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from shared.errors import INTERNAL, Overloaded
from shared.ledger.server.app import MAX_BATCH_BYTES, MAX_ENTRIES, create_app
from shared.ledger.server.settings import LedgerSettings
from tests.support.entries import caller

SECRET = "private-input-of-the-sender"
JSON = {"content-type": "application/json"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(LedgerSettings(state_dir=tmp_path))


@pytest.fixture
def http(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def entry(**facts: Any) -> dict[str, Any]:
    return caller().model_dump(mode="json") | facts


def delivery(**facts: Any) -> bytes:
    return json.dumps({"entries": [entry(**facts)]}).encode()


def without(name: str) -> bytes:
    whole = entry()
    del whole[name]
    return json.dumps({"entries": [whole]}).encode()


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error after checking its format."""
    body = answer.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"code", "message"} <= error.keys()
    assert error.keys() <= {"code", "message", "field", "limit", "retry_after_s"}
    assert SECRET not in answer.text
    assert answer.headers["content-type"] == "application/json"
    return error


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (delivery(unheard_of=SECRET), "entries.0.unheard_of"),
        (json.dumps({"entries": [], "more": SECRET}).encode(), "more"),
        (delivery(ordinal=SECRET), "entries.0.ordinal"),
        (delivery(started_at=float("nan"), label=SECRET), "entries.0.started_at"),
        (delivery(side=SECRET), "entries.0.side"),
        (delivery(label=[SECRET]), "entries.0.label"),
        (delivery(policy=SECRET * 4), "entries.0.policy"),
        (delivery(attempt_id=f"{SECRET} "), "entries.0.attempt_id"),
        (delivery(label=None, writer=SECRET), "entries.0"),
        (json.dumps({"entries": SECRET}).encode(), "entries"),
        (json.dumps([SECRET]).encode(), "body"),
        (without("tier"), "entries.0.tier"),
        (b"{}", "entries"),
        (b"", "body"),
        (f"{SECRET} is not JSON".encode(), "body"),
        (b"\0\0\0" + SECRET.encode(), "body"),
        (b'{"entries": "\xff' + SECRET.encode() + b'"}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"entries": ' + b"9" * 5000 + b"}", "body"),
        (delivery(label=f"{SECRET}\0"), "entries.0.label"),
        (delivery(attempt_id=f"{SECRET}\0"), "entries.0.attempt_id"),
        (delivery(label=f"{SECRET}\ud800"), "body"),
        (delivery(**{f"\ud800{'x' * 200}": SECRET}), None),
    ],
    ids=[
        "unknown", "unknown-above", "type", "nan", "enum", "list", "long", "pattern", "validator",
        "not-a-list", "not-an-object", "missing", "missing-above", "empty", "text", "nul",
        "not-utf-8", "deep", "number", "nul-in-word", "nul-in-id", "surrogate", "surrogate-name",
    ],
)  # fmt: skip
def test_invalid_field_is_named_and_not_repeated(
    http: TestClient, content: bytes, field: str | None
) -> None:
    answer = http.post("/v1/entries", content=content, headers=JSON)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (422, "invalid_input")
    assert len(error["message"]) <= 300
    if field is not None:
        assert error["field"] == field
        assert error["message"].startswith(f"{field}: ")
    assert http.get("/v1/summary").json()["requests"] == 0


def test_wrong_content_type_is_refused(http: TestClient) -> None:
    answer = http.post("/v1/entries", content=SECRET.encode(), headers={"content-type": "text/x"})
    assert answer.status_code == 422
    error_of(answer)


def test_too_many_entries_are_refused(http: TestClient) -> None:
    content = json.dumps({"entries": [entry()] * (MAX_ENTRIES + 1)})
    answer = http.post("/v1/entries", content=content, headers=JSON)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (413, "too_large")
    assert (error["field"], error["limit"]) == ("entries", MAX_ENTRIES)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_body_above_the_limit_is_refused(http: TestClient, chunked: bool) -> None:
    piece = SECRET.encode() * 50_000

    def pieces() -> Iterator[bytes]:
        for _ in range(9_000_000 // len(piece) + 1):
            yield piece

    content = pieces() if chunked else b"".join(pieces())
    answer = http.post("/v1/entries", content=content, headers=JSON)
    assert ("content-length" not in answer.request.headers) == chunked
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (413, "too_large")
    assert (error["field"], error["limit"]) == ("body", MAX_BATCH_BYTES)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("size", [MAX_BATCH_BYTES, MAX_BATCH_BYTES + 1])
def test_body_of_exactly_the_limit_is_accepted(http: TestClient, size: int) -> None:
    content = b'{"entries": []}'.ljust(size)
    answer = http.post("/v1/entries", content=content, headers=JSON)
    assert answer.status_code == (200 if size == MAX_BATCH_BYTES else 413)


def test_unknown_paths_and_requests_are_not_found(http: TestClient) -> None:
    for path in (f"/{SECRET}", f"/v1/requests/{SECRET}"):
        answer = http.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


def test_wrong_method_is_refused(http: TestClient) -> None:
    answer = http.get("/v1/entries")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    error_of(answer)


def test_unexpected_errors_reveal_nothing(app: FastAPI, http: TestClient) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError(SECRET)

    answer = http.get("/broken")
    assert (answer.status_code, answer.json()) == (500, INTERNAL)
    error_of(answer)


def test_overload_carries_retry_after(app: FastAPI, http: TestClient) -> None:
    @app.get("/full")
    def full() -> None:
        raise Overloaded("the queue is full", retry_after_s=0.2)

    answer = http.get("/full")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert error_of(answer)["retry_after_s"] == 0.2
