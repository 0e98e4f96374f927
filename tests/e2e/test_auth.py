"""The four services with tokens and mutual TLS, and replacing a token while they serve."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from shared.credentials import Credentials
from shared.domain import Delivery, Tier
from shared.errors import NotAdmitted, TierUnreachable, Unauthorised
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.serving.tokens import new_token, revoke_token
from shared.tier_client import Exchange, TierClient
from shared.wire import InferRequest
from testbed.processes.processes import Role, Testbed
from testbed.up import MODULES
from tests.support.answers import EDGE_RULES
from tests.support.entries import caller
from tests.support.paths import BUNDLE, REPOSITORY, free_ports

DEVICES = {
    "mobile": ["infer", "ledger:write"],
    "edge": ["ledger:write"],
    "cloud": ["ledger:write"],
    "app": ["classify"],
    "analyst": ["ledger:read"],
}


@dataclass
class SecuredTestbed:
    """A testbed with its tokens and certificates in ``folder``."""

    folder: Path
    testbed: Testbed

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.jsonl"

    def token_file(self, device: str) -> Path:
        return self.folder / f"{device}.token"

    def issue_token(self, device: str) -> None:
        """Write a new token for this device to the file that it reads."""
        self.token_file(device).write_text(new_token(self.tokens, device, DEVICES[device])[0])

    def credentials(self, device: str, **other: Any) -> Credentials:
        facts = {
            "token_file": self.token_file(device),
            "ca": self.folder / "ca.pem",
            "client_cert": self.folder / "client.pem",
        }
        return Credentials(**facts | other)

    def http(self, device: str, **other: Any) -> httpx.Client:
        credentials = self.credentials(device, **other)
        url = self.testbed.roles["mobile"].url
        return httpx.Client(
            base_url=url,
            auth=credentials.auth,
            verify=credentials.verify,
            trust_env=False,
            timeout=60,
        )

    def ledger(self, device: str) -> LedgerClient:
        return LedgerClient(self.testbed.roles["ledger"].url, credentials=self.credentials(device))

    def log(self, name: str) -> str:
        return self.testbed.log(name).read_text()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredTestbed]:
    folder = tmp_path_factory.mktemp("auth")
    authority, other_authority = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other_authority.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, ca in (
        ("server", authority),
        ("client", authority),
        ("other-client", other_authority),
    ):
        certificate = ca.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    ports = dict(zip(MODULES, free_ports(4), strict=True))
    urls = {
        f"DIMEE_{name.upper()}_URL": f"https://127.0.0.1:{ports[name]}"
        for name in ("ledger", "edge", "cloud")
    }
    common = {
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_TOKENS": str(folder / "tokens.jsonl"),
        "DIMEE_FAIL_OVER": '["edge", "cloud"]',
        "DIMEE_TLS_CERT": str(folder / "server.pem"),
        "DIMEE_TLS_CLIENT_CA": str(folder / "ca.pem"),
        "DIMEE_TLS_CA": str(folder / "ca.pem"),
        "DIMEE_TLS_CLIENT_CERT": str(folder / "client.pem"),
    }
    readers = {"mobile": "mobile", "edge": "edge", "cloud": "cloud"}
    roles = [
        Role(
            name,
            module,
            ports[name],
            urls
            | (
                {"DIMEE_TOKEN_FILE": str(folder / f"{readers[name]}.token")}
                if name in readers
                else {}
            ),
            scheme="https",
        )
        for name, module in MODULES.items()
    ]
    credentials = Credentials(ca=folder / "ca.pem", client_cert=folder / "client.pem")
    running = SecuredTestbed(folder, Testbed(roles, folder / "state", common, credentials))
    for device in DEVICES:
        running.issue_token(device)
    with running.testbed:
        running.testbed.start_all()
        yield running


def classify(http: httpx.Client, policy: str) -> httpx.Response:
    return http.post("/v1/classify", json={"texts": ["a gripping, funny film"], "policy": policy})


def ask(secured: SecuredTestbed, credentials: Credentials, url: str | None = None) -> Exchange:
    async def one() -> Exchange:
        client = TierClient(
            Tier.EDGE,
            url or secured.testbed.roles["edge"].url,
            EDGE_RULES,
            credentials=credentials,
        )
        try:
            request = InferRequest(request_id="r", attempt_id="a", text="fine")
            return await client.infer(request, 20)
        finally:
            await client.close()

    return asyncio.run(one())


def test_all_tiers_answer_with_tokens_and_mutual_tls(secured: SecuredTestbed) -> None:
    with secured.http("app") as http:
        tiers = [
            classify(http, policy).json()["items"][0]["result"]["tier"]
            for policy in ("mobile", "edge", "cloud")
        ]
    assert tiers == ["mobile", "edge", "cloud"]
    report = wait_for_consistent(secured.ledger("analyst"), wait_s=30, requests=3)
    assert report.consistent, report
    assert report.requests >= 3


def test_tokens_are_limited_to_their_scopes(
    secured: SecuredTestbed,
) -> None:
    with pytest.raises(Exception, match="ledger:read") as caught:
        secured.ledger("mobile").verify()
    assert getattr(caught.value, "code", None) == "forbidden"
    with pytest.raises(Unauthorised):
        LedgerClient(
            secured.testbed.roles["ledger"].url,
            credentials=secured.credentials("mobile", token_file=None),
        ).verify()
    with secured.http("mobile") as http:
        assert classify(http, "mobile").status_code == 403
    exchange = ask(secured, secured.credentials("app"))
    assert isinstance(exchange.error, NotAdmitted)
    assert exchange.delivery is Delivery.UNKNOWN, "a refused request is not recorded"
    assert "scope infer" in exchange.error.message


def test_certificate_of_another_authority_is_a_clear_error(secured: SecuredTestbed) -> None:
    exchange = ask(secured, secured.credentials("mobile", ca=secured.folder / "other-ca.pem"))
    assert isinstance(exchange.error, TierUnreachable)
    assert "DIMEE_TLS_CA has not signed its certificate" in exchange.error.message
    assert exchange.delivery is Delivery.NOT_SENT


def test_mutual_tls_refuses_clients_without_our_certificate(secured: SecuredTestbed) -> None:
    for certificate in (None, secured.folder / "other-client.pem"):
        exchange = ask(secured, secured.credentials("mobile", client_cert=certificate))
        assert isinstance(exchange.error, TierUnreachable), certificate
        assert "DIMEE_TLS_CLIENT_CERT" in exchange.error.message
        assert exchange.answer is None


def test_plain_http_is_refused(secured: SecuredTestbed) -> None:
    url = secured.testbed.roles["edge"].url.replace("https", "http")
    assert isinstance(ask(secured, secured.credentials("mobile"), url).error, TierUnreachable)


def test_token_is_replaced_without_a_restart(secured: SecuredTestbed) -> None:
    """The old token is revoked before the new one exists: no entry is lost, one line is logged."""
    with secured.http("app") as http:
        revoke_token(secured.tokens, "mobile")
        refused = classify(http, "cloud")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "not_admitted"), error
        assert classify(http, "mobile").status_code == 200, "the mobile still answers alone"
        before = secured.ledger("analyst").verify().caller_rows
        _until(lambda: "rejects this process's token" in secured.log("mobile"))
        secured.issue_token("mobile")
        assert classify(http, "cloud").status_code == 200
    report = wait_for_consistent(secured.ledger("analyst"), wait_s=30, requests=before + 1)
    assert report.consistent, report
    summary = secured.ledger("analyst").summary()
    assert summary.attempts_by_state.get("refused", 0) >= 2, (
        "both servers refused, and both attempts are recorded"
    )
    assert secured.log("mobile").count("rejects this process's token") == 1
    assert "accepts this process again" in secured.log("mobile")
    logs = "".join(secured.log(name) for name in MODULES)
    for device in DEVICES:
        assert secured.token_file(device).read_text() not in logs


def _until(condition: Any, timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("the condition was not met in time")


def test_forwarded_address_of_a_client_is_ignored(tmp_path: Path) -> None:
    """By default uvicorn would trust X-Forwarded-For from loopback."""
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0])
    settings = {"DIMEE_RATE_LIMIT": "0.01", "DIMEE_RATE_BURST": "2"}
    with Testbed([role], tmp_path / "state", settings) as testbed:
        testbed.start_all()
        with httpx.Client(base_url=role.url, trust_env=False) as http:
            seen = [
                http.get("/v1/summary", headers={"x-forwarded-for": f"10.0.0.{i}"}).status_code
                for i in range(4)
            ]
    assert seen == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DIMEE_HOST": "0.0.0.0"}, "DIMEE_TOKENS"),
        ({"DIMEE_HOST": "::"}, "DIMEE_TOKENS"),
        ({"DIMEE_HOST": "0.0.0.0", "DIMEE_PUBLISH_ADDRESS": "10.0.0.1"}, "10.0.0.1"),
        ({"DIMEE_TOKENS": "/nowhere/tokens.jsonl"}, "there is no /nowhere/tokens.jsonl"),
        ({"DIMEE_TLS_CERT": "/nowhere/cert.pem"}, "DIMEE_TLS_CERT"),
        ({"DIMEE_TLS_KEY": "/nowhere/key.pem"}, "needs DIMEE_TLS_CERT"),
        ({"DIMEE_RATE_LIMIT": "-1"}, "DIMEE_RATE_LIMIT"),
    ],
)
def test_wrong_setting_ends_the_start_with_one_sentence(
    settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    given = {"DIMEE_PORT": str(free_ports(1)[0]), "DIMEE_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "shared.ledger.server"],
        env=os.environ | given | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "ledger.sqlite").exists(), "refused before the database is opened"


def test_tls_without_client_certificates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0], scheme="https")
    credentials = Credentials(ca=tmp_path / "ca.pem")
    settings = {"DIMEE_TLS_CERT": str(tmp_path / "server.pem")}
    with Testbed([role], tmp_path / "state", settings, credentials) as testbed:
        testbed.start_all()
        assert LedgerClient(role.url, credentials=credentials).verify().consistent
        assert isinstance(credentials.verify, ssl.SSLContext)
        assert _health(role, settings) == 0, "the containers' health check supports TLS"
        assert _health(role, {}) == 1
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{role.url}/readyz", trust_env=False)
        outbox = Outbox.claim(tmp_path / "outbox", "mobile")
        outbox.record(caller())
        for used, delivered in ((Credentials(), False), (credentials, True)):
            shipper = Shipper(outbox, role.url, credentials=used)
            assert shipper.flush(5) is delivered
            shipper.close(1)
        outbox.close()
        assert caplog.text.count("set DIMEE_TLS_CA") == 1, "logged once"


def _health(role: Role, settings: dict[str, str]) -> int:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "deploy" / "healthcheck.py")],
        env=os.environ | settings | {"DIMEE_PORT": str(role.port)},
        timeout=30,
        check=False,
    ).returncode
