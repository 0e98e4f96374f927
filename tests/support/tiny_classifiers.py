"""Tiny fine-tuned classifiers of every encoder family, as Hugging Face folders with tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    MPNetTokenizer,
    RobertaTokenizer,
)

from lab.models.embedding_tables import quantised_rows
from tests.support.tiny_encoders import CONFIGS
from tests.support.topics import TOPICS, make_topics

CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 64


def make_tokenizer(kind: str) -> Any:
    """Return a tokenizer of the family: WordPiece of the topics' words, or byte-level BPE."""
    texts = [text.lower() for text, _ in make_topics(300, seed=9)]
    letters = sorted({sign for text in texts for sign in text if not sign.isspace()})
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})
    pieces = [*dict.fromkeys([*letters, *(f"##{sign}" for sign in letters), *words])]
    if kind in ("bert", "distilbert", "electra"):
        return BertTokenizer(vocab={word: i for i, word in enumerate((*CONTROL, *pieces))})
    control = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    if kind == "mpnet":
        vocabulary = (*control[:3], "[UNK]", *pieces, "<mask>")
        return MPNetTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, 400, special_tokens=[*control], show_progress=False)
    made = json.loads(trained.to_str())["model"]
    return RobertaTokenizer(vocab=made["vocab"], merges=[tuple(two) for two in made["merges"]])


def make_classifier(
    kind: str,
    folder: Path,
    labels: Sequence[str] | None = TOPICS,
    layers: int = 3,
    seed: int = 3,
    **settings: Any,
) -> Path:
    """Write a classifier with random weights and hidden size 32 to ``folder``, and return it.

    The word table has values that a bundle's 8 bits represent exactly. Without ``labels`` it has
    the default names of ``transformers`` for three classes.
    """
    padded = kind in ("mpnet", "roberta", "xlm-roberta")
    tokenizer = make_tokenizer(kind)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "hidden_dim" if kind == "distilbert" else "intermediate_size": 64,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS + 2 * padded,
        "pad_token_id": int(padded),
        "initializer_range": 0.3,
    }
    if labels is None:
        sizes["num_labels"] = len(TOPICS)
    else:
        sizes["id2label"] = dict(enumerate(labels))
        sizes["label2id"] = {label: index for index, label in enumerate(labels)}
    config = CONFIGS[kind](**(sizes | settings))
    torch.manual_seed(seed)
    classifier = AutoModelForSequenceClassification.from_config(config)
    words = classifier.get_input_embeddings().weight
    word_VH, scale_V = quantised_rows(words.detach().numpy())
    with torch.no_grad():
        words.copy_(torch.from_numpy(word_VH * scale_V[:, None]))
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fine_tune(
    folder: Path, rows: Sequence[tuple[str, str]], epochs: int, learning_rate: float
) -> None:
    """Train the classifier in ``folder`` on texts and labels, in fp32, and save it there again."""
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    index = classifier.config.label2id
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate)
    torch.manual_seed(5)
    classifier.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(32):
            texts, labels = zip(*(rows[i] for i in batch.tolist()), strict=True)
            inputs = tokenizer([*texts], padding=True, truncation=True, return_tensors="pt")
            targets = torch.tensor([index[label] for label in labels])
            classifier(**inputs, labels=targets).loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    classifier.save_pretrained(folder)


def logits_of(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    """Return ``logits_NC`` of the classifier in ``folder``, one text at a time, in fp32."""
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return torch.cat(
            [classifier.eval()(**tokenizer(text, return_tensors="pt")).logits for text in texts]
        )
