"""The four processes with all doors closed: tokens, mutual TLS, rotation while they serve."""

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
class House:
    """A testbed and the keys to it; every file of it is in ``folder``."""

    folder: Path
    testbed: Testbed

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.jsonl"

    def secret(self, device: str) -> Path:
        return self.folder / f"{device}.token"

    def hand_out(self, device: str) -> None:
        """A new token for this device, in the file that it reads."""
        self.secret(device).write_text(new_token(self.tokens, device, DEVICES[device])[0])

    def keys(self, device: str, **other: Any) -> Credentials:
        facts = {
            "token_file": self.secret(device),
            "ca": self.folder / "ca.pem",
            "client_cert": self.folder / "client.pem",
        }
        return Credentials(**facts | other)

    def http(self, device: str, **other: Any) -> httpx.Client:
        keys = self.keys(device, **other)
        url = self.testbed.roles["mobile"].url
        return httpx.Client(
            base_url=url, auth=keys.auth, verify=keys.verify, trust_env=False, timeout=60
        )

    def ledger(self, device: str) -> LedgerClient:
        return LedgerClient(self.testbed.roles["ledger"].url, credentials=self.keys(device))

    def log(self, name: str) -> str:
        return self.testbed.log(name).read_text()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("doors")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, ca in (("server", authority), ("client", authority), ("stranger", stranger)):
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
    keys = Credentials(ca=folder / "ca.pem", client_cert=folder / "client.pem")
    running = House(folder, Testbed(roles, folder / "state", common, keys))
    for device in DEVICES:
        running.hand_out(device)
    with running.testbed:
        running.testbed.start_all()
        yield running


def classify(http: httpx.Client, policy: str) -> httpx.Response:
    return http.post("/v1/classify", json={"texts": ["a gripping, funny film"], "policy": policy})


def ask(house: House, keys: Credentials, url: str | None = None) -> Exchange:
    async def one() -> Exchange:
        client = TierClient(Tier.EDGE, url or house.testbed.roles["edge"].url, credentials=keys)
        try:
            request = InferRequest(request_id="r", attempt_id="a", text="fine")
            return await client.infer(request, 20)
        finally:
            await client.close()

    return asyncio.run(one())


def test_everything_works_with_every_door_closed(house: House) -> None:
    with house.http("app") as http:
        tiers = [
            classify(http, policy).json()["items"][0]["result"]["tier"]
            for policy in ("mobile", "edge", "cloud")
        ]
    assert tiers == ["mobile", "edge", "cloud"]
    report = wait_for_consistent(house.ledger("analyst"), wait_s=30, requests=3)
    assert report.consistent, report
    assert report.requests >= 3


def test_a_mobiles_token_does_not_read_the_ledger_and_an_apps_does_not_ask_the_edge(
    house: House,
) -> None:
    with pytest.raises(Exception, match="ledger:read") as caught:
        house.ledger("mobile").verify()
    assert getattr(caught.value, "code", None) == "forbidden"
    with pytest.raises(Unauthorised):
        LedgerClient(
            house.testbed.roles["ledger"].url,
            credentials=house.keys("mobile", token_file=None),
        ).verify()
    with house.http("mobile") as http:
        assert classify(http, "mobile").status_code == 403
    exchange = ask(house, house.keys("app"))
    assert isinstance(exchange.error, NotAdmitted)
    assert exchange.delivery is Delivery.UNKNOWN, "a door books nothing"
    assert "scope infer" in exchange.error.message


def test_another_authority_is_a_clear_error(house: House) -> None:
    exchange = ask(house, house.keys("mobile", ca=house.folder / "other-ca.pem"))
    assert isinstance(exchange.error, TierUnreachable)
    assert "not one that DIMEE_TLS_CA signed" in exchange.error.message
    assert exchange.delivery is Delivery.NOT_SENT


def test_mutual_tls_refuses_who_has_no_certificate_of_ours(house: House) -> None:
    for certificate in (None, house.folder / "stranger.pem"):
        exchange = ask(house, house.keys("mobile", client_cert=certificate))
        assert isinstance(exchange.error, TierUnreachable), certificate
        assert "DIMEE_TLS_CLIENT_CERT" in exchange.error.message
        assert exchange.answer is None


def test_plain_http_gets_nowhere(house: House) -> None:
    url = house.testbed.roles["edge"].url.replace("https", "http")
    assert isinstance(ask(house, house.keys("mobile"), url).error, TierUnreachable)


def test_a_token_is_rotated_while_everything_serves(house: House) -> None:
    """The old one is revoked before the new one is there: nothing is lost, and it is said once."""
    with house.http("app") as http:
        revoke_token(house.tokens, "mobile")
        refused = classify(http, "cloud")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "not_admitted"), error
        assert classify(http, "mobile").status_code == 200, "the mobile still answers alone"
        before = house.ledger("analyst").verify().caller_rows
        _until(lambda: "does not admit this process" in house.log("mobile"))
        house.hand_out("mobile")
        assert classify(http, "cloud").status_code == 200
    report = wait_for_consistent(house.ledger("analyst"), wait_s=30, requests=before + 1)
    assert report.consistent, report
    summary = house.ledger("analyst").summary()
    assert summary.attempts_by_state.get("refused", 0) >= 2, "refused by both doors, and booked"
    assert house.log("mobile").count("does not admit this process") == 1
    assert "admits this process again" in house.log("mobile")
    told = "".join(house.log(name) for name in MODULES)
    for device in DEVICES:
        assert house.secret(device).read_text() not in told


def _until(condition: Any, timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("it did not happen in time")


def test_a_client_cannot_name_its_own_address(tmp_path: Path) -> None:
    """uvicorn would believe a neighbour's X-Forwarded-For, and give each name a rate of its own."""
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
    ("settings", "said"),
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
def test_the_start_is_refused_in_one_sentence(
    settings: dict[str, str], said: str, tmp_path: Path
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
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "ledger.sqlite").exists(), "refused before anything is opened"


def test_tls_alone_needs_no_client_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0], scheme="https")
    keys = Credentials(ca=tmp_path / "ca.pem")
    settings = {"DIMEE_TLS_CERT": str(tmp_path / "server.pem")}
    with Testbed([role], tmp_path / "state", settings, keys) as testbed:
        testbed.start_all()
        assert LedgerClient(role.url, credentials=keys).verify().consistent
        assert isinstance(keys.verify, ssl.SSLContext)
        assert _health(role, settings) == 0, "the containers' own check speaks TLS too"
        assert _health(role, {}) == 1
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{role.url}/readyz", trust_env=False)
        outbox = Outbox.claim(tmp_path / "outbox", "mobile")
        outbox.record(caller())
        for credentials, delivered in ((Credentials(), False), (keys, True)):
            shipper = Shipper(outbox, role.url, credentials=credentials)
            assert shipper.flush(5) is delivered
            shipper.close(1)
        outbox.close()
        assert caplog.text.count("set DIMEE_TLS_CA") == 1, "said, and once"


def _health(role: Role, settings: dict[str, str]) -> int:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "deploy" / "healthcheck.py")],
        env=os.environ | settings | {"DIMEE_PORT": str(role.port)},
        timeout=30,
        check=False,
    ).returncode
