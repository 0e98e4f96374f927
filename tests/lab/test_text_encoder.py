"""`TextEncoder` gives every family the ids of its transformers tokenizer, and the right segments.

Training and serving both use it. The tokenizers are WordPiece, byte-level BPE and Unigram.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AddedToken, AutoTokenizer, BertTokenizer

from lab.models.encoders import load_tokenizer
from lab.models.families import MODEL_TYPES, family_of
from lab.models.inputs import torch_inputs
from shared.bundle.loading import Bundle
from shared.bundle.manifest import TOKENIZER
from shared.inference.tokenizer import TextEncoder
from testbed.texts import sample_sentences
from tests.support.tiny_data import NEUTRAL, SPECIAL
from tests.support.tiny_encoders import CONFIGS, CONTROL, make_config, write_encoder

LITERALS = (*SPECIAL, *CONTROL)
TEXTS: list[tuple[str, str | None]] = [
    ("a warm day", None),
    ("The film, and 2 books: 'very' dull!", None),
    ("naïve café … 日本 😀 fine", None),
    ("  two  spaces\tand\nlines ", None),
    ("very lovely " * 50, None),
    ("the day", "a night"),
    ("the book " * 40, "a night"),
    ("the book", "a dull night " * 40),
    ("the book " * 40, "a dull night " * 40),
    ("covid19 was bad", "no covid19"),
]


@pytest.fixture(scope="module", params=list(CONFIGS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of each family; its tokenizer has one added token and cuts at the left."""
    folder = write_encoder(kind, tmp_path_factory.mktemp(kind))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("covid19", normalized=False)])
    tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("max_tokens", [16, 31, 64])
@pytest.mark.parametrize(("text", "pair"), TEXTS)
def test_ids_and_truncation_are_those_of_transformers(
    text: str, pair: str | None, max_tokens: int, folder: Path
) -> None:
    """The end is cut, of a pair the longer text first, whatever the tokenizer's config says."""
    tokenizer = load_tokenizer(str(folder))
    tokenizer.truncation_side = "right"
    expected = tokenizer(
        text, pair, truncation="longest_first", max_length=max_tokens, return_token_type_ids=True
    )
    encoder = TextEncoder(folder / "tokenizer.json", max_tokens)
    row, ids = encoder.encode(text, pair), encoder.ids(text, pair)
    assert row.ids_T.tolist() == list(ids.ids_T) == expected["input_ids"]
    assert row.type_ids_T.tolist() == list(ids.type_ids_T)
    assert row.truncated == (len(tokenizer(text, pair)["input_ids"]) > max_tokens)
    special = tokenizer.get_special_tokens_mask(
        expected["input_ids"], already_has_special_tokens=True
    )
    unknown = expected["input_ids"].count(tokenizer.unk_token_id)
    # transformers counts the token for unknown words as special; here it is content
    assert int((~row.content_T).sum()) == sum(special) - unknown


def test_segments_are_given_only_to_families_that_take_them(kind: str, folder: Path) -> None:
    """transformers gives no token types for DistilBERT, and zeros for RoBERTa and MPNet."""
    tokenizer = load_tokenizer(str(folder))
    family = family_of(make_config(kind, len(tokenizer)))
    encoder = TextEncoder(folder / "tokenizer.json", 64)
    rows = [encoder.encode("a warm day", "the night"), encoder.encode("fine")]
    inputs = torch_inputs(rows, family, tokenizer.pad_token_id)
    expected = tokenizer(
        ["a warm day", "fine"], ["the night", ""], padding=True, return_token_type_ids=True
    )
    lengths = [row.tokens for row in rows]
    assert inputs["attention_mask"].sum(1).tolist() == lengths
    assert inputs["input_ids"][0].tolist() == expected["input_ids"][0]
    assert (inputs["input_ids"][1, lengths[1] :] == tokenizer.pad_token_id).all()
    assert ("token_type_ids" in inputs) == (kind in ("bert", "electra"))
    if "token_type_ids" in inputs:
        assert inputs["token_type_ids"][0].tolist() == expected["token_type_ids"][0]
        assert not inputs["token_type_ids"][1].any()


def test_segments_do_not_depend_on_the_post_processor(tmp_path: Path) -> None:
    """Some files of BERT tokenizers give zeros for both texts of a pair."""
    folder = write_encoder("bert", tmp_path)
    right = TextEncoder(folder / "tokenizer.json", 32).encode("a warm day", "the night")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    assert not any(tokenizer.encode("a warm day", "the night").type_ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    got = TextEncoder(folder / "tokenizer.json", 32).encode("a warm day", "the night")
    assert got.ids_T.tolist() == right.ids_T.tolist()
    assert got.type_ids_T.tolist() == right.type_ids_T.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("literal", LITERALS)
def test_control_tokens_in_a_text_are_text(literal: str, folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    encoder = TextEncoder(folder / "tokenizer.json", 64)
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text in (literal, f"a {literal} day", f"a{literal}day", f"{literal}{literal} day"):
        for pair in (None, f"the {literal} night"):
            row = encoder.encode(text, pair)
            assert control.isdisjoint(row.ids_T[row.content_T].tolist())
            plain = encoder.encode("day", None if pair is None else "night")
            special = [row.ids_T[~row.content_T], plain.ids_T[~plain.content_T]]
            np.testing.assert_array_equal(*special)


def test_text_without_control_tokens_is_read_as_before(folder: Path) -> None:
    """Unigram models are changed for the former rule; no other text may change."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = TextEncoder(folder / "tokenizer.json", 64)
    for text, pair in TEXTS[:4]:
        plain = tokenizer.encode(text, pair)
        assert encoder.encode(text, pair).ids_T.tolist() == plain.ids
        assert encoder.encode(text, pair).content_T.tolist() == [
            not mask for mask in plain.special_tokens_mask
        ]


def test_models_that_have_control_tokens_as_words_or_merges_do_not_make_them(
    tmp_path: Path,
) -> None:
    words = {word: i for i, word in enumerate((*SPECIAL, "a", "[", "##S", "##E", "##P", "##]"))}
    word_piece = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    word_piece.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    word_piece.add_special_tokens([*SPECIAL])
    pieces = {piece: i for i, piece in enumerate(("<s>", "<", "s", ">", "<s", "a"))}
    merged = Tokenizer(models.BPE(pieces, [("<", "s"), ("<s", ">")]))
    merged.add_special_tokens(["<s>"])
    expected = {"wordpiece.json": [5, 6, 7, 8, 9, 10], "bpe.json": [5, 4, 3]}
    for tokenizer, name, text in (
        (word_piece, "wordpiece.json", "a [SEP]"),
        (merged, "bpe.json", "a<s>"),
    ):
        tokenizer.save(str(tmp_path / name))
        row = TextEncoder(tmp_path / name, 16).encode(text)
        assert row.ids_T.tolist() == expected[name]


@pytest.mark.parametrize(
    ("text", "pieces"), [("a warm day", 0), ("night and day", 0), (" ".join(NEUTRAL), 0)]
)
def test_common_words_are_a_single_piece(text: str, pieces: int, folder: Path) -> None:
    encoder = TextEncoder(folder / "tokenizer.json", 64)
    assert encoder.encode(text).rare_pieces == pieces
    # the first word of a text lacks byte-level BPE's leading space
    assert encoder.encode(f"{text} zzxqj").rare_pieces > pieces
    both = encoder.encode(text, f"{text} zzxqj")
    assert both.rare_pieces == encoder.encode(f"{text} zzxqj").rare_pieces


def test_shipped_tokenizer_equals_that_of_its_encoder(bundle: Bundle) -> None:
    """Real sentences, real vocabulary: ids, types and truncation, alone and in pairs."""
    tokenizer = load_tokenizer(bundle.manifest.encoder)
    encoder = TextEncoder(bundle.path / TOKENIZER, 24)
    texts = sample_sentences()[:20]
    for text, pair in [*((text, None) for text in texts), *itertools.pairwise(texts)]:
        expected = tokenizer(
            text, pair, truncation="longest_first", max_length=24, return_token_type_ids=True
        )
        row = encoder.encode(text, pair)
        assert row.ids_T.tolist() == expected["input_ids"]
        assert row.type_ids_T.tolist() == expected["token_type_ids"]


def test_vocabulary_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    words = [*SPECIAL, *NEUTRAL, "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["bert"](vocab_size=17).to_dict()))
    converted = tmp_path / "converted.json"
    load_tokenizer(str(tmp_path)).backend_tokenizer.save(str(converted))
    row = TextEncoder(converted, 16).encode("The books", "a film")
    expected = BertTokenizer(vocab={word: i for i, word in enumerate(words)})("The books", "a film")
    assert row.ids_T.tolist() == expected["input_ids"]
    assert row.type_ids_T.tolist() == expected["token_type_ids"]


def test_every_family_has_a_tokenizer_here() -> None:
    assert set(CONFIGS) == set(MODEL_TYPES)
