"""The steps of open-the-app-on-a-phone.md: certificate, token, and a gateway for the network."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.processes.ports import free_ports
from tests.support.paths import BUNDLE, REPOSITORY
from tests.support.started import started

PAGE = (REPOSITORY / "docs" / "how-to" / "open-the-app-on-a-phone.md").read_text(encoding="utf-8")
ADDRESS, PORT = "192.168.1.20", "8711"
"""Address and port on the page."""

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def command(beginning: str) -> str:
    """Return the command of the page that begins so, in one line."""
    found = re.search(rf"^ *\$ ({re.escape(beginning)}(?:.*\\\n)*.*)$", PAGE, re.M)
    assert found, beginning
    return re.sub(r"\\\n *", "", found[1])


def run(folder: Path, line: str) -> str:
    """Run a command of the page in ``folder``; return what it prints on stdout."""
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-c", line.replace("deploy/", f"{REPOSITORY}/deploy/")],
        cwd=folder,
        env=os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate and the token of the page, for loopback."""
    folder = tmp_path_factory.mktemp("app")
    printed = run(folder, command("deploy/device-certificate.sh").replace(ADDRESS, "127.0.0.1"))
    assert "certificate for IP:127.0.0.1" in printed
    token = run(folder, command("DIMEE_TOKENS=device/tokens.jsonl dimee token new"))
    (folder / "token").write_text(token.strip())
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of a gateway that was started with the command of the page."""
    words = shlex.split(command("DIMEE_HOST=0.0.0.0"))
    settings = dict(word.split("=", 1) for word in words if word.startswith("DIMEE_"))
    assert words[len(settings) :] == ["python", "-m", "mobile_client"]
    port, *others = free_ports(4)
    assert settings["DIMEE_PORT"] == PORT
    settings |= {"DIMEE_PORT": str(port), "DIMEE_BUNDLE": str(BUNDLE)}
    for name in ("TOKENS", "TLS_CERT", "TLS_KEY", "STATE_DIR"):
        settings[f"DIMEE_{name}"] = str(folder / settings[f"DIMEE_{name}"])
    for name, other in zip(("EDGE", "CLOUD", "LEDGER"), others, strict=True):
        settings[f"DIMEE_{name}_URL"] = f"http://127.0.0.1:{other}"
    url = f"https://127.0.0.1:{port}"
    with started(folder / "scratch", "-m", "mobile_client", **settings) as gateway:
        while not is_alive(url, trusting(folder)):
            assert gateway.process.poll() is None, gateway.process.communicate()
            time.sleep(0.1)
        yield url


def is_alive(url: str, verify: ssl.SSLContext) -> bool:
    try:
        return httpx.get(f"{url}/healthz", verify=verify, timeout=60).status_code == 200
    except httpx.ConnectError:
        return False


def trusting(folder: Path) -> ssl.SSLContext:
    """Return what a device that has installed the authority trusts: it and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "device" / "for-the-device" / "dimee-ca.crt")
    return context


def test_device_with_the_authority_and_the_token_opens_the_app(folder: Path, url: str) -> None:
    token = {"authorization": f"Bearer {(folder / 'token').read_text()}"}
    with httpx.Client(base_url=url, verify=trusting(folder), timeout=60) as http:
        page = http.get("/app/")
        assert page.status_code == 200
        assert page.headers["cross-origin-embedder-policy"] == "require-corp"
        config = http.get("/app/config.json").json()
        assert (config["auth_required"], config["bundle_auth"]) == (True, True)
        assert http.get("/app/bundle/manifest.json").status_code == 401
        manifest = http.get("/app/bundle/manifest.json", headers=token)
        assert manifest.json()["bundle_id"] == config["bundle_id"]
        assert http.get("/app/relay/edge/readyz", headers=token).status_code == 503
        # the token is that device's alone: it may not see what concerns other clients
        assert http.get("/v1/status", headers=token).status_code == 403


def test_device_without_the_authority_does_not_connect(url: str) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/app/", timeout=60)


def test_certificate_is_what_devices_demand_and_the_authoritys_key_is_gone(folder: Path) -> None:
    device = folder / "device"
    files = {path.relative_to(device).as_posix() for path in device.rglob("*") if path.is_file()}
    made = {"server/cert.pem", "server/key.pem", "for-the-device/dimee-ca.crt"}
    assert made <= files
    assert not [name for name in files - {"server/key.pem"} if "key" in name]
    assert (device / "server" / "key.pem").stat().st_mode & 0o077 == 0
    shown = run(
        device,
        "openssl x509 -in server/cert.pem -noout -dates "
        "-ext subjectAltName,extendedKeyUsage,basicConstraints",
    )
    assert "IP Address:127.0.0.1" in shown
    assert "TLS Web Server Authentication" in shown
    assert "CA:FALSE" in shown
    # at most 825 days; 396 are promised
    checked = f"openssl x509 -in server/cert.pem -noout -checkend {397 * 86_400} || echo ends"
    assert "ends" in run(device, checked)
