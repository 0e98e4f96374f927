"""Sign-in to the gateway's page: session, cookie, revocation and what a session may do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from shared.serving.sessions import (
    COOKIE,
    MAX_SESSIONS,
    MAX_SESSIONS_OF_TOKEN,
    SESSION_S,
    Sessions,
)
from shared.serving.tokens import Token, digest, new_token, revoke_token
from tests.support.clock import Clock
from tests.support.gateway import make_gateway

STATE, SIGN_IN, SIGN_OUT = "/dashboard/api/state", "/dashboard/sign-in", "/dashboard/sign-out"
CLASSIFY = "/dashboard/api/classify"
SCRIPT = {"x-dimee-dashboard": "1"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.jsonl"
    new_token(file, "unrelated", ["infer"])
    return file


@pytest.fixture
def browser(tmp_path: Path, tokens: Path) -> Iterator[TestClient]:
    app = make_gateway(tmp_path, tokens=tokens)
    with TestClient(app, base_url="https://gateway", raise_server_exceptions=False) as client:
        yield client


def sign_in(browser: TestClient, secret: str) -> httpx.Response:
    return browser.post(SIGN_IN, headers={"authorization": f"Bearer {secret}"} | SCRIPT)


def test_sign_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(
    browser: TestClient, tokens: Path
) -> None:
    secret, _ = new_token(tokens, "anna", ["classify"])
    assert browser.get(STATE).json() == {"signed_in": False, "auth_required": True}
    answer = sign_in(browser, secret)
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", "Secure", "Path=/", f"Max-Age={SESSION_S}"):
        assert attribute in cookie
    assert secret not in cookie
    state = browser.get(STATE).json()
    assert (state["signed_in"], state["auth_required"], state["name"]) == (True, True, "anna")
    assert state["scopes"] == ["classify"]
    body = {"text": "a gripping, funny film"}
    assert browser.post(CLASSIFY, json=body, headers=SCRIPT).status_code == 200
    assert browser.post("/v1/classify", json={"texts": ["fine"]}, headers=SCRIPT).status_code == 200


def test_call_with_a_cookie_that_changes_something_needs_the_header_of_the_page(
    browser: TestClient, tokens: Path
) -> None:
    secret, _ = new_token(tokens, "anna", ["classify"])
    sign_in(browser, secret)
    refused = browser.post(CLASSIFY, json={"text": "fine"})
    assert refused.status_code == 403
    assert "x-dimee-dashboard" in refused.json()["error"]["message"]
    bearer = {"authorization": f"Bearer {secret}"}
    assert browser.post(CLASSIFY, json={"text": "fine"}, headers=bearer).status_code == 200


def test_sign_out_ends_the_session_on_the_server(browser: TestClient, tokens: Path) -> None:
    secret, _ = new_token(tokens, "anna", ["classify"])
    sign_in(browser, secret)
    stolen = browser.cookies[COOKIE]
    assert browser.post(SIGN_OUT, headers=SCRIPT).status_code == 204
    assert COOKIE not in browser.cookies
    again = browser.get("/v1/bundle", headers={"cookie": f"{COOKIE}={stolen}"})
    assert again.status_code == 401
    assert "sign in" in again.json()["error"]["message"]


def test_revoked_token_ends_its_sessions(browser: TestClient, tokens: Path) -> None:
    secret, _ = new_token(tokens, "anna", ["classify"])
    sign_in(browser, secret)
    assert browser.get("/v1/bundle").status_code == 200
    revoke_token(tokens, "anna")
    assert browser.get("/v1/bundle").status_code == 401
    assert browser.get(STATE).json()["signed_in"] is False


def test_session_has_the_scopes_of_its_token(browser: TestClient, tokens: Path) -> None:
    secret, _ = new_token(tokens, "anna", ["classify"])
    sign_in(browser, secret)
    for path in ("events", "requests", "requests/r1"):
        refused = browser.get(f"/dashboard/api/{path}")
        assert refused.status_code == 403, path
        assert "status" in refused.json()["error"]["message"]
    assert browser.post("/dashboard/api/whatif", json={}, headers=SCRIPT).status_code == 403
    link = browser.put("/dashboard/api/links/x", json={"spec": None}, headers=SCRIPT)
    assert link.status_code == 403
    state = browser.get(STATE).json()
    assert state["alarms"] == state["links"] == []


@pytest.mark.parametrize("scopes", [["infer"], ["status"]])
def test_sign_in_needs_the_scope_of_classifying(
    browser: TestClient, tokens: Path, scopes: list[str]
) -> None:
    secret, _ = new_token(tokens, "other", scopes)
    assert sign_in(browser, secret).status_code == 403
    assert COOKIE not in browser.cookies


def test_failed_sign_ins_count_against_the_address(tmp_path: Path, tokens: Path) -> None:
    app = make_gateway(tmp_path, tokens=tokens, rate_limit=0.001, rate_burst=3)
    with TestClient(app, raise_server_exceptions=False) as browser:
        tried = [sign_in(browser, f"dimee_guess{i}").status_code for i in range(5)]
    assert tried == [401, 401, 401, 429, 429]


def test_no_answer_and_no_log_holds_token_or_session(
    browser: TestClient, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, token = new_token(tokens, "anna", ["classify", "status"])
    answers = [sign_in(browser, secret)]
    session = browser.cookies[COOKIE]
    answers += [browser.get(path) for path in ("/", STATE, "/v1/status", "/v1/bundle", "/docs")]
    answers.append(browser.get("/v1/bundle", headers={"cookie": f"{COOKIE}={session}x"}))
    said = caplog.text + "".join(answer.text for answer in answers)
    for private in (secret, session, token.sha256, digest(session)):
        assert private not in said


def test_page_and_files_need_no_sign_in_and_hold_no_data(browser: TestClient) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert browser.get("/dashboard/static/index.html").status_code == 200
    assert browser.head("/").status_code == 200
    for path in ("/docs", "/openapi.json", "/v1/bundle", "/dashboard/api/events"):
        assert browser.get(path).status_code == 401, path
    assert browser.post("/", json={"inputs": "fine"}).status_code == 401


def test_without_tokens_no_sign_in_is_needed(tmp_path: Path) -> None:
    with TestClient(make_gateway(tmp_path)) as browser:
        state = browser.get(STATE).json()
        assert (state["signed_in"], state["auth_required"]) == (False, False)
        assert {"classify", "status"} <= set(state["scopes"])
        answer = browser.post(SIGN_IN)
        assert answer.status_code == 204
        assert "set-cookie" not in answer.headers


def token(name: str) -> Token:
    return Token(name=name, sha256=digest(name), scopes=("classify",))


def test_session_ends_after_its_time() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    session = sessions.begin(token("anna"))
    clock.now += SESSION_S - 1
    assert sessions.find(session) == token("anna").sha256
    clock.now += 1
    assert sessions.find(session) is None
    sessions.begin(token("ben"))
    assert len(sessions) == 1


def test_number_of_sessions_is_bounded() -> None:
    sessions = Sessions()
    first = sessions.begin(token("ben"))
    own = [sessions.begin(token("anna")) for _ in range(MAX_SESSIONS_OF_TOKEN + 2)]
    assert [sessions.find(one) is None for one in own[:3]] == [True, True, False]
    assert sessions.find(first) is not None, "sessions of one token end none of another"
    for number in range(MAX_SESSIONS):
        sessions.begin(token(f"t{number}"))
    assert len(sessions) == MAX_SESSIONS
    assert sessions.find(first) is None


def test_unknown_session_is_none() -> None:
    sessions = Sessions()
    for unknown in ("", "x", "\udcff", "a" * 10_000):
        assert sessions.find(unknown) is None
        sessions.end(unknown)
