"""Examples of GLUE tasks from JSON lines and hubs, and data that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.data.examples import Example, load_examples
from lab.data.tasks import get_task
from shared.errors import InvalidInput
from shared.text import check_text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"sentence": "a", "label": 2}',
            "row 1 has label 2; sst2 has negative, positive, or 0 to 1",
        ),
        ('{"sentence": "a", "label": true}', "row 1 has label True"),
        ('{"text": "a", "label": 0}', "row 1 has no field 'sentence'"),
        ('{"sentence": "a", "label": -1}', "row 1 has no label"),
        ('{"sentence": null, "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": "  ", "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": 3, "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": "\\ud83d", "label": 1}', "row 1 holds a lone surrogate at character 1 in"),
        ('{"sentence": "a\\u0000", "label": 1}', r"row 1 holds the character U\+0000 at char"),
        ('{"sentence": "a"}', "row 1 has no field 'label'"),
        ('{"sentence": "a", "label": "2"}', "row 1 has label '2'"),
        ('{"sentence": "a", "label": "bad"}', "row 1 has label 'bad'"),
        ('{"sentence": "a", "label": 0.5}', "row 1 has label 0.5, which is a number that is not"),
        ('{"sentence": "a", "label": [1]}', "which is neither a string nor a number"),
        ('{"sentence": "a", "label": ""}', "row 1 has no label in 'label'"),
        ("not json", "line 1 is not JSON"),
        ('["sentence", "label"]', "line 1 is not a JSON object"),
        ("3", "line 1 is not a JSON object"),
        ("", "is empty"),
    ],
)
def test_invalid_data_is_refused(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(InvalidInput, match=message):
        load_examples(str(tmp_path), get_task("sst2"), "train")


def test_unreadable_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    task = get_task("sst2")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="is UTF-16; save it as UTF-8"):
        load_examples(str(tmp_path), task, "train")
    file.write_bytes(b"\xff{}")
    with pytest.raises(InvalidInput, match=r"line 1 is not UTF-8 \(byte 1 of the line\); save"):
        load_examples(str(tmp_path), task, "train")
    file.unlink()
    file.symlink_to("/proc/self/mem")  # a file that even root cannot read from its beginning
    with pytest.raises(InvalidInput, match=r"cannot be read \(Input/output error\)"):
        load_examples(str(tmp_path), task, "train")
    with pytest.raises(InvalidInput, match=r"cannot be read \(File name too long\)"):
        load_examples("x" * 300, task, "train")
    for missing in (tmp_path / "none", tmp_path / "none" / "deeper"):
        with pytest.raises(InvalidInput, match="is neither a folder with"):
            load_examples(str(missing), task, "train")
    with pytest.raises(InvalidInput, match=r"validation\.jsonl does not exist; give a folder"):
        load_examples(str(tmp_path), task, "validation")


def test_hub_name_of_the_mnli_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's library reads a folder in the hub's layout."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    splits = ("train", "validation_matched", "validation_mismatched")
    hub = tmp_path / "glue"
    hub.mkdir()
    lines = ["---", "configs:", "- config_name: mnli", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: {split}.jsonl"]
        rows = [{"premise": split, "hypothesis": f"h {i}", "label": i % 3} for i in range(6)]
        (hub / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (hub / "README.md").write_text("\n".join([*lines, "---", ""]))
    mnli = get_task("mnli")
    for split, name in (("train", "train"), ("validation", "validation_matched")):
        rows_read = load_examples(f"{hub}:mnli", mnli, split)
        assert rows_read == [Example(name, f"h {i}", i % 3) for i in range(6)]
    (hub / "validation.jsonl").write_text((hub / "validation_matched.jsonl").read_text())
    assert len(load_examples(str(hub), mnli, "validation")) == 6


def test_training_and_serving_refuse_the_same_characters(tmp_path: Path) -> None:
    """Every control character, C0 and C1, and a lone surrogate."""
    task = get_task("sst2")
    for code in (*range(0x20), *range(0x7F, 0xA0), 0xD800):
        text = f"a{chr(code)}b"
        file = tmp_path / "t.jsonl"
        file.write_text(json.dumps({"sentence": text, "label": 0}))
        if code in (0, 0xD800):
            with pytest.raises(InvalidInput, match=r"at character 2"):
                check_text(text)
            with pytest.raises(InvalidInput, match=r"at character 2 in 'sentence'"):
                load_examples(str(file), task, "train")
        else:
            assert check_text(text) == load_examples(str(file), task, "train")[0].text == text
