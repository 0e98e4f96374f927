"""``dimee classify``, ``demo``, ``up`` and ``load`` with bundles of pairs, as real processes."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle, load_bundle
from shared.domain import InputText
from testbed.bench.early_exit import early_exit
from testbed.processes.ports import free_ports
from tests.support.commands import (
    as_csv,
    dimee_up,
    dimee_with,
    direct_answers,
    port_options,
    write_times,
)
from tests.support.tiny_bundles import PAIR_TASKS, awkward_pair_rows, export_pair_bundle


@pytest.fixture(scope="module")
def pair_bundle(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of pairs in two classes."""
    return load_bundle(export_pair_bundle(tmp_path_factory.mktemp("mrpc"), tiny_encoder))


@pytest.fixture(scope="module")
def three_class_bundle(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of pairs in three classes, without samples."""
    folder = tmp_path_factory.mktemp("mnli")
    return load_bundle(export_pair_bundle(folder, tiny_encoder, "mnli", samples=False))


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_classify_reads_pairs_from_stdin(
    kind: str, three_class_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = three_class_bundle
    first, second, _ = PAIR_TASKS["mnli"]
    rows = awkward_pair_rows("mnli", 5, 9)
    texts = [InputText(str(row[first]), str(row[second])) for row in rows]
    stdin = {
        "tsv": "".join(f"{text.text}\t{text.pair}\n" for text in texts),
        "csv": as_csv(rows),
        "jsonl": "".join(json.dumps({"text": t.text, "pair": t.pair}) + "\n" for t in texts),
    }[kind]
    options = [] if kind == "tsv" else ["--input-format", kind]
    done = dimee_with(
        bundle, tmp_path, "classify", "-", "--policy", "bert", "--json", *options, stdin=stdin
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == direct_answers(bundle, texts)
    assert all(set(answer["probabilities"]) == set(bundle.manifest.labels) for answer in answers)
    lines = [answer["line"] for answer in answers]
    assert lines == [number + (kind == "csv") for number in range(1, 6)]


def test_wrong_lines_are_rows_and_the_others_are_answered(
    pair_bundle: Bundle, tmp_path: Path
) -> None:
    lines = [f"a fine film\tthe dull book {number}\n".encode() for number in range(450)]
    lines[3] = b"one column\n"
    lines[250] = b"a\tb \xff\n"
    lines[449] = b"a\t\n"
    command = ["classify", "-", "--policy", "mobile", "--json"]
    done = dimee_with(pair_bundle, tmp_path, *command, stdin=b"".join(lines))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, 451))
    assert [row["line"] for row in rows if "error" in row] == [4, 251, 450]
    assert done.returncode == 2
    assert done.stderr.endswith(
        "3 of 450 rows are not valid; line 4: has 1 of the columns that tabs separate; "
        "give text, pair\n"
    )


def test_classify_reads_a_file_and_a_pair_of_the_command_line(
    pair_bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text('one,two\n"fine, warm",dull\n')
    fields = ["--text-field", "one", "--pair-field", "two"]
    done = dimee_with(
        pair_bundle, tmp_path, "classify", "--texts", str(file), *fields, "--policy", "bert"
    )
    assert done.returncode == 0, done.stderr
    label = direct_answers(pair_bundle, [InputText("fine, warm", "dull")])[0]
    header, row, hint = done.stdout.splitlines()
    assert hint.startswith("why there: dimee explain ")
    assert row.startswith("fine, warm         | dull")
    assert row.index(label) == header.index("label")
    given = dimee_with(
        pair_bundle,
        tmp_path,
        "classify",
        "fine, warm",
        "--pair",
        "dull",
        "--policy",
        "bert",
        "--json",
    )
    assert json.loads(given.stdout)[0]["label"] == label
    missing = dimee_with(pair_bundle, tmp_path, "classify", "--texts", str(file))
    assert missing.returncode == 2
    assert "name yours with --text-field and --pair-field" in missing.stderr
    lines = dimee_with(
        pair_bundle, tmp_path, "classify", "-", "--input-format", "lines", stdin="a\n"
    )
    assert lines.returncode == 2
    assert "needs pairs of texts" in lines.stderr


def test_demo_shows_the_bundles_own_samples(pair_bundle: Bundle, tmp_path: Path) -> None:
    options = ["--policy", "bert", *port_options()]
    done = dimee_with(pair_bundle, tmp_path, "demo", "--bundle", str(pair_bundle.path), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    samples = pair_bundle.samples()
    answers = direct_answers(pair_bundle, samples)
    right = sum(text.label == answer for text, answer in zip(samples, answers, strict=True))
    assert f"right: {right} of {len(samples)} labelled texts" in done.stdout
    rows = [line for line in done.stdout.splitlines() if " | " in line]
    shown = [line.endswith("  right") for line in rows]
    assert shown == [text.label == answer for text, answer in zip(samples, answers, strict=True)]
    assert "ledger verify: consistent" in done.stdout


def test_demo_reads_labelled_texts_of_three_classes(
    three_class_bundle: Bundle, tmp_path: Path
) -> None:
    rows = awkward_pair_rows("mnli", 6, 5)
    (tmp_path / "pairs.csv").write_text(as_csv(rows))
    options = ["--policy", "bert", "--texts", str(tmp_path / "pairs.csv"), *port_options()]
    done = dimee_with(three_class_bundle, tmp_path, "demo", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, _ = PAIR_TASKS["mnli"]
    answers = direct_answers(
        three_class_bundle, [InputText(str(row[first]), str(row[second])) for row in rows]
    )
    labels = three_class_bundle.manifest.labels
    expected = [labels[int(str(row["label"]))] for row in rows]
    verdicts = [
        "  right" if answer == label else f"  wrong: {label}"
        for answer, label in zip(answers, expected, strict=True)
    ]
    shown = [line for line in done.stdout.splitlines() if " | " in line]
    assert len(shown) == len(verdicts)
    for line, answer, verdict in zip(shown, answers, verdicts, strict=True):
        assert f"  {answer} " in line
        assert line.endswith(verdict)


def test_demo_and_load_ask_for_texts_if_a_bundle_of_pairs_has_none(
    three_class_bundle: Bundle, tmp_path: Path
) -> None:
    for command in ("demo", "load"):
        done = dimee_with(three_class_bundle, tmp_path, command)
        assert done.returncode == 2
        assert done.stderr.startswith("dimee: texts: the bundle (mnli) takes pairs of texts")
        assert "--texts FILE" in done.stderr


@pytest.fixture(scope="module")
def running(
    pair_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A running ``dimee up``: its state folder, and the command that it prints for a first call."""
    folder = tmp_path_factory.mktemp("state")
    # a queue that never refuses
    with dimee_up("--state-dir", folder, bundle=pair_bundle.path, max_queue_ms=600_000) as up:
        yield folder, up.first_call


def test_command_that_up_prints_works_in_a_shell(
    pair_bundle: Bundle, running: tuple[Path, str]
) -> None:
    _, command = running
    samples = pair_bundle.samples()
    sent = json.loads(shlex.split(command)[-1])
    assert (sent["texts"][0], sent["pairs"][0]) in {(text.text, text.pair) for text in samples}
    assert "'" in sent["texts"][0]
    assert "$HOME" in sent["texts"][0]
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=True)
    result = json.loads(done.stdout)["items"][0]["result"]
    assert result["label"] in pair_bundle.manifest.labels


@pytest.mark.parametrize("path", ["cloud", "edge", "policy"])
def test_load_reports_the_accuracy_of_labelled_pairs(
    path: str, pair_bundle: Bundle, running: tuple[Path, str], tmp_path: Path
) -> None:
    first, second, _ = PAIR_TASKS["mrpc"]
    rows = awkward_pair_rows("mrpc", 60, 21)
    (tmp_path / "labelled.csv").write_text(as_csv(rows))
    times = write_times(tmp_path / "times", 2 * len(rows))
    options = ["--state-dir", str(running[0]), "--path", path, "--out", str(tmp_path / "load")]
    options += ["--texts", str(tmp_path / "labelled.csv")]
    options += ["--arrivals", str(times), "--duration", "4", "--deadline-ms", "60000"]
    done = dimee_with(pair_bundle, tmp_path, "load", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "load.json").read_text())
    assert report["endings"] == {"answered": 120}
    accuracy = report["accuracy"]
    assert (accuracy["texts"], accuracy["answers"]) == (60, 120)
    assert accuracy["low"] < accuracy["share"] < accuracy["high"]
    tiers = [one for one in report["tiers"].values() if one]
    assert sum(one["answered"] for one in tiers) == 120
    assert all(one["accuracy"]["answers"] == one["answered"] for one in tiers)
    assert f"accuracy {100 * accuracy['share']:.1f} %" in done.stdout
    assert f"{100 * accuracy['share']:.1f} %" in (tmp_path / "load.html").read_text()
    if path == "cloud":
        texts = [InputText(str(row[first]), str(row[second])) for row in rows]
        labels = [pair_bundle.manifest.labels[int(str(row["label"]))] for row in rows]
        answers = direct_answers(pair_bundle, texts)
        right = sum(a == b for a, b in zip(answers, labels, strict=True))
        assert accuracy["share"] == pytest.approx(right / len(rows))


def test_load_refuses_unknown_labels_with_the_line(
    pair_bundle: Bundle, running: tuple[Path, str], tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text('{"text": "a", "pair": "b"}\n{"text": "a", "pair": "b", "label": "x"}\n')
    options = ["--state-dir", str(running[0]), "--texts", str(unknown)]
    done = dimee_with(pair_bundle, tmp_path, "load", *options)
    assert done.returncode == 2
    assert "unknown.jsonl line 2: has the label 'x'" in done.stderr


def test_prices_are_measured_with_the_samples(
    pair_bundle: Bundle, running: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "prices.json"
    options = ["--state-dir", str(running[0]), "--requests", "5", "--out", str(out)]
    done = dimee_with(pair_bundle, tmp_path, "prices", "measure", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["cost_model"]["edge_layer"] == 1


def test_benchmark_of_early_exit_sends_pairs(pair_bundle: Bundle, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    texts = pair_bundle.samples()
    found = early_exit(pair_bundle.path, tmp_path, texts, port, {"three": 3}, 0.5, 0.5, runs=1)
    assert found["three"]["by_connections"]["8"]["on"]["rps"] > 0
