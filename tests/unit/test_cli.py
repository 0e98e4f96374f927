"""The command ``dimee classify``: tables, JSON and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_client.cli import main
from mobile_client.cli.batches import BATCH_ROWS
from tests.support.paths import BUNDLE, free_ports

DIMEE = Path(sys.executable).parent / "dimee"


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Return settings with which no server can be reached."""
    ledger, edge, cloud = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    return {
        "DIMEE_LEDGER_URL": ledger,
        "DIMEE_EDGE_URL": edge,
        "DIMEE_CLOUD_URL": cloud,
        "DIMEE_STATE_DIR": str(tmp_path),
        "DIMEE_BUNDLE": str(BUNDLE),
    }


def dimee(
    *arguments: str, settings: dict[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [DIMEE, *arguments],
        env=os.environ | settings,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_file_that_no_command_expected_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "dimee", lambda: Path("/no/folder/file").read_text())
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "dimee: /no/folder/file: No such file or directory\n"


def test_json_has_the_documented_fields(offline: dict[str, str]) -> None:
    done = dimee("classify", "a wonderful film", "--policy", "mobile", "--json", settings=offline)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    documented = {
        "request_id",
        "label",
        "probabilities",
        "confidence",
        "tier",
        "exit_layer",
        "policy",
        "attempts",
        "cost",
    }
    assert documented <= answer.keys()
    assert (answer["label"], answer["tier"], answer["policy"]) == ("positive", "mobile", "mobile")
    assert len(answer["attempts"]) == 1
    assert answer["cost"]["cost_lambda"] > 0


def test_dash_reads_texts_from_stdin(offline: dict[str, str]) -> None:
    lines = b"a wonderful film\n\nan ugly, lifeless mess\n"
    done = dimee("classify", "-", "--policy", "mobile", "--json", settings=offline, stdin=lines)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(a["index"], a["line"], a.get("label")) for a in answers] == [
        (0, 1, "positive"),
        (1, 2, None),
        (2, 3, "negative"),
    ]
    assert answers[1]["error"]["message"] == "line 2: is empty"
    assert done.returncode == 2


def test_table_has_one_row_per_text(offline: dict[str, str]) -> None:
    done = dimee("classify", "a wonderful film", "--policy", "mobile", settings=offline)
    header, row = done.stdout.decode().splitlines()[:2]
    assert header.split() == ["text", "label", "conf", "tier", "exit", "ms", "cost", "λ"]
    assert row.startswith("a wonderful film")
    assert " mobile " in row


@pytest.mark.parametrize("policy", ["edge", "cloud"])
def test_unreachable_tier_is_named(policy: str, offline: dict[str, str]) -> None:
    asked = offline | {"DIMEE_FAIL_OVER": '["edge", "cloud"]', "DIMEE_RETRIES": "0"}
    done = dimee("classify", "fine", "--policy", policy, "--json", settings=asked)
    assert done.returncode == 1
    (answer,) = json.loads(done.stdout)
    assert answer["error"]["code"] == "tier_unreachable"
    assert offline[f"DIMEE_{policy.upper()}_URL"] in answer["error"]["message"]
    assert b"dimee up" in done.stderr


def test_offline_mobile_answers_and_names_the_missing_servers(offline: dict[str, str]) -> None:
    done = dimee("classify", "a wonderful film", "--policy", "edge", settings=offline)
    assert done.returncode == 0
    assert b" mobile*! " in done.stdout
    assert (
        b"1 answer comes from the mobile because servers did not answer: edge, cloud (unreachable)"
        in done.stderr
    )
    assert b"dimee up" in done.stderr
    silent = dimee("classify", "fine", "--mode", "only-on-device", settings=offline)
    assert (silent.returncode, silent.stderr) == (0, b"")


def test_cost_ceiling_below_every_answer_is_rejected(offline: dict[str, str]) -> None:
    done = dimee("classify", "fine", "--max-cost", "0.5", "--json", settings=offline)
    assert done.returncode == 1
    (answer,) = json.loads(done.stdout)
    assert answer["error"]["field"] == "max_cost_lambda"
    assert "give at least" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("classify",), b"", b"TEXT: is missing"),
        (("classify", ""), b"", b"text 1: text: is empty"),
        (("classify", "-"), b"", b"contains no text"),
        (("classify", "-"), b"\xff\xfe", b"is UTF-16; save it as UTF-8"),
        (("classify", "a", "--pair", "b"), b"", b"the task sst2 uses none"),
        (("classify", "x" * 30_000), b"", b"at most 20,000"),
        (("classify", "a", "--bundle", "/nowhere"), b"", b"dimee export"),
        (
            ("classify", "-", "--input-format", "csv"),
            b"a,b\n1,2\n",
            b"name yours with --text-field",
        ),
        (("classify", "a", "--texts", "b"), b"", b"not both"),
        (("classify", "-", "--pair", "b"), b"a\n", b"belongs to a TEXT"),
        (("classify", "--texts", "/nowhere"), b"", b"/nowhere cannot be read"),
        (("up", "--bundle", "/nowhere"), b"", b"dimee export"),
        (("demo", "--bundle", "/nowhere"), b"", b"dimee export"),
        (("load", "--bundle", "/nowhere"), b"", b"dimee export"),
        (("load", "--texts", "/nowhere"), b"", b"/nowhere cannot be read"),
        (("demo", "--texts", "/nowhere"), b"", b"/nowhere cannot be read"),
        (
            ("classify", "a", "--policy", "best"),
            b"",
            b"'best' is not known; choose one of cascade-routing,",
        ),
        (("ledger", "summary"), b"", b"start it with: dimee up"),
        (("ledger", "show", "none"), b"", b"start it with: dimee up"),
    ],
)
def test_wrong_input_is_reported_in_one_sentence_with_exit_code_2(
    arguments: tuple[str, ...], stdin: bytes, says: bytes, offline: dict[str, str]
) -> None:
    done = dimee(*arguments, settings=offline, stdin=stdin)
    assert done.returncode == 2
    assert says in done.stderr
    assert b"Traceback" not in done.stderr


def test_wrong_setting_is_named(offline: dict[str, str]) -> None:
    done = dimee("classify", "a", settings=offline | {"DIMEE_DEADLINE_MS": "soon"})
    assert done.returncode == 2
    assert b"DIMEE_DEADLINE_MS" in done.stderr
    assert b"Traceback" not in done.stderr


def test_answers_appear_while_stdin_is_open(offline: dict[str, str]) -> None:
    """The first batch is answered before the input ends, so that input of any length works."""
    process = subprocess.Popen(
        [DIMEE, "classify", "-", "--policy", "mobile", "--json"],
        env=os.environ | offline,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(b"fine\n" * BATCH_ROWS)
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(BATCH_ROWS)]
        process.stdin.write("\u200b\nugly, lifeless mess".encode())  # no end of line
        process.stdin.close()
        rest = [json.loads(line) for line in process.stdout]
    assert [row["line"] for row in first] == list(range(1, BATCH_ROWS + 1))
    assert [row.get("label") for row in rest] == [None, "negative"]
    assert rest[0]["error"]["message"].startswith(
        f"line {BATCH_ROWS + 1}: text: contains no character"
    )
    assert process.returncode == 2
