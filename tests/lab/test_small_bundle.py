"""From a CSV of 60 rows to running tiers, by the real commands: the default policy fits the data.

Nothing depends on what the tiny model answers: the tests read policies, notes and exit statuses.
"""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.bundle.loading import load_bundle
from tests.support.commands import dimee, dimee_up, port_options
from tests.support.tiny_data import BAD, GOOD, NEUTRAL

pytestmark = pytest.mark.long  # eight processes load torch or a bundle, one after the other
TEXT = "a warm film"
WORDS = {"Lob": GOOD, "Tadel": BAD, "中立": ("book", "film")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of three classes."""
    rng = random.Random(3)
    file = tmp_path_factory.mktemp("sixty") / "opinions.csv"
    with file.open("w", encoding="utf-8", newline="") as content:
        rows = csv.writer(content)
        rows.writerow(["body", "opinion"])
        for number in range(60):
            label = tuple(WORDS)[number % 3]
            words = rng.sample(NEUTRAL, rng.randint(3, 8))
            rows.writerow([" ".join([*words, rng.choice(WORDS[label])]), label])
    return file


@pytest.fixture(scope="module")
def exported(
    data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A bundle of 60 rows, and what the export printed on stderr."""
    folder = tmp_path_factory.mktemp("small")
    done = dimee(
        "train", "--data", data, "--text-field", "body", "--label-field", "opinion",
        "--encoder", tiny_encoder, "--epochs", 1, "--no-bf16", "--out", folder / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = dimee(
        "export", folder / "run", folder / "bundle", "--mobile-layers", 1, "--edge-layers", 2
    )
    assert done.returncode == 0, done.stderr
    assert "`dimee-fixed`: the bundle has no correctness heads" in done.stdout
    assert "--text-field body" in done.stdout
    assert "--label-field opinion" in done.stdout
    assert "glue" not in done.stdout.lower()
    return folder / "bundle", done.stderr


@pytest.fixture(scope="module")
def bundle_folder(exported: tuple[Path, str]) -> Path:
    return exported[0]


@pytest.fixture(scope="module")
def urls(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of the four processes that ``dimee up`` started with the bundle."""
    state = tmp_path_factory.mktemp("state")
    with dimee_up("--bundle", bundle_folder, "--state-dir", state) as running:
        yield running.urls


def test_export_says_which_policy_runs_and_what_was_checked(exported: tuple[Path, str]) -> None:
    folder, notes = exported
    first, second = (line for line in notes.splitlines() if line.startswith("note: "))
    bundle = load_bundle(folder)
    parts = [bundle.manifest.accuracy[name]["examples"] for name in ("validation", "reported")]
    assert f"runs the policy dimee-fixed by default, because {parts[0]} validation" in first
    assert "give at least 100 validation examples" in first
    assert f"precision was checked on {parts[1]} reported texts" in second
    assert "to refuse 1.5 points it needs 800 texts" in second
    assert bundle.default_policy == "dimee-fixed"


def test_classify_uses_the_default_policy(bundle_folder: Path, tmp_path: Path) -> None:
    done = dimee("classify", TEXT, "--json", bundle=bundle_folder, state_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["policy"] == "dimee-fixed"
    assert answer["label"] in WORDS


def test_other_policy_is_refused_with_what_to_do(bundle_folder: Path, tmp_path: Path) -> None:
    done = dimee(
        "classify", TEXT, "--policy", "cascade-routing", bundle=bundle_folder, state_dir=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dimee: policy: cascade-routing cannot run")
    assert "such as dimee-fixed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "export it again" not in done.stderr


def test_demo_runs_also_on_a_database_with_entries(bundle_folder: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    for _ in range(2):
        done = dimee("demo", "--bundle", bundle_folder, "--database-url", database, *port_options())
        assert done.returncode == 0, done.stderr
        assert "policies  dimee-fixed" in done.stdout


def test_tiers_answer_and_explain(urls: dict[str, str], bundle_folder: Path) -> None:
    """The gateway, ``status`` and ``explain`` name the policy; ``whatif`` says why it cannot."""
    ready = httpx.get(f"{urls['mobile']}/readyz", trust_env=False).json()
    assert ready["policy"] == "dimee-fixed"
    sent = httpx.post(
        f"{urls['mobile']}/v1/classify", json={"texts": [TEXT]}, trust_env=False, timeout=30
    )
    (item,) = sent.json()["items"]
    assert item["result"]["policy"] == "dimee-fixed"
    settings: dict[str, Any] = {"bundle": bundle_folder, "ledger_url": urls["ledger"]}
    status = dimee(
        "status", "--mobile-url", urls["mobile"], "--edge-url", urls["edge"],
        "--cloud-url", urls["cloud"], **settings,
    )  # fmt: skip
    assert status.returncode == 0, status.stdout + status.stderr
    assert "policy dimee-fixed" in status.stdout
    request_id = item["result"]["request_id"]
    deadline = time.monotonic() + 30  # the ledger gets the entries a moment after the answer
    while (explained := dimee("explain", request_id, **settings)).returncode:
        assert time.monotonic() < deadline, explained.stderr
    assert f"request {request_id} by dimee-fixed" in explained.stdout
    whatif = dimee("whatif", **settings)
    assert whatif.returncode == 2
    assert "no correctness heads" in whatif.stderr


def test_load_uses_the_default_policy(urls: dict[str, str], tmp_path: Path) -> None:
    """A scenario of cascade routing is refused with the gateway's message."""
    done = dimee(
        "load", "--url", urls["mobile"], "--ledger-url", urls["ledger"], "--rate", 5,
        "--duration", 1, "--out", tmp_path / "load",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered 100.00%" in done.stdout
    scenario = dimee(
        "load", "--url", urls["mobile"], "--ledger-url", urls["ledger"], "--rate", 5,
        "--duration", 1, "--out", tmp_path / "load", "--scenario", "rare-escalation",
    )  # fmt: skip
    assert scenario.returncode != 0
    assert "no correctness heads" in scenario.stderr


def test_calibrate_runs_on_the_default_policy(
    bundle_folder: Path, data: Path, tmp_path: Path
) -> None:
    """The test part of the user's file certifies a large drop at most; one sentence says so."""
    out = ("--out", tmp_path / "certificate.json")
    small = dimee("calibrate", bundle_folder, "--data", data, *out, "--max-drop", 1)
    assert small.returncode == 2
    assert "the test part of" in small.stdout
    assert "policy dimee-fixed" in small.stdout
    assert small.stderr.startswith("dimee: max-drop: 1 cannot be certified with n = ")
    assert small.stderr.count("\n") == 1
