"""Fine-tuned Hugging Face classifiers (``…ForSequenceClassification``): labels, encoder, head.

A model with exits that starts from one has the classifier's head as its last exit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lab.data.labels import check_labels
from lab.models.exit_heads import ExitShape
from lab.models.families import CLASSIFIERS, EncoderFamily, family_of
from lab.models.model import MultiExitClassifier
from shared.errors import DimeeError, InvalidInput
from shared.files import refuse_special_files
from shared.labels import listed


@dataclass(frozen=True)
class ClassifierConfig:
    """Checked configuration of a classifier: its family, and its labels in their order."""

    name: str
    config: Any
    family: EncoderFamily
    labels: tuple[str, ...]


def read_classifier(name: str) -> ClassifierConfig:
    """Read the configuration of the classifier in a folder or on a hub; weights are not loaded.

    Raises `InvalidInput` unless it is a single-label ``…ForSequenceClassification`` of a supported
    family.
    """
    refuse_special_files(Path(name), "from_classifier")
    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:  # each file format has its own exceptions
        raise _not_loadable(name, error) from error
    named = config.architectures or "a model without named architecture"
    architectures = [str(one) for one in (named if isinstance(named, list) else [named])]
    if len(architectures) != 1 or architectures[0] not in CLASSIFIERS:
        raise InvalidInput(
            f"from_classifier: {name} holds {' and '.join(architectures)}, not a fine-tuned "
            f"classifier; give a folder or hub name with one of {', '.join(CLASSIFIERS)} "
            "(a pretrained encoder without a head is for --encoder)"
        )
    family = family_of(config)
    if config.problem_type == "multi_label_classification":
        raise InvalidInput(
            f"from_classifier: {name} gives a text several labels (multi-label classification), "
            "but an exit answers with exactly one; give a single-label classifier"
        )
    if config.problem_type == "regression" or config.num_labels < 2:
        raise InvalidInput(
            f"from_classifier: {name} is a regression model, whose output is a number and not a "
            "label; give a classifier of two or more labels"
        )
    return ClassifierConfig(name, config, family, _labels(name, config))


def _labels(name: str, config: Any) -> tuple[str, ...]:
    named: dict[int, str] = config.id2label
    labels = tuple(str(named.get(index, "")) for index in range(config.num_labels))
    if len(named) != len(labels) or len(set(labels)) < len(labels) or not all(labels):
        raise InvalidInput(
            f"from_classifier: id2label of {name} does not name each of its {len(labels)} classes "
            "once; give every index from 0 its own name in config.json"
        )
    try:
        check_labels(labels)
    except InvalidInput as error:
        reason = error.message.removeprefix("labels: ")
        raise InvalidInput(
            f"from_classifier: id2label in config.json of {name}: {reason}"
        ) from None
    return labels


def load_classifier(name: str, exits: ExitShape) -> MultiExitClassifier:
    """Return a model with exits whose encoder and last exit are those of the classifier.

    The other exits are untrained and have the shape ``exits``. Raises `InvalidInput` for what
    `read_classifier` refuses, and for a classifier without weights for all of its parts.
    """
    read = read_classifier(name)
    try:
        classifier, loading = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True
        )
    except DimeeError:
        raise
    except Exception as error:  # each file format has its own exceptions
        raise _not_loadable(name, error) from error
    if missing := sorted(loading["missing_keys"]):
        raise InvalidInput(
            f"from_classifier: the weights of {name} lack {listed(missing)}; give the folder "
            "that the fine-tuning saved"
        )
    head = read.family.classifier_head(classifier)
    shapes = [exits] * read.config.num_hidden_layers
    shapes[-1] = ExitShape("cls", head.hidden.out_features, head.activation)
    model = MultiExitClassifier(classifier.base_model, len(read.labels), shapes=shapes)
    hidden, _, last = model.exit_heads[-1].children()
    hidden.load_state_dict(head.hidden.state_dict())
    last.load_state_dict(head.last.state_dict())
    return model


def _not_loadable(name: str, error: Exception) -> InvalidInput:
    if Path(name).is_dir():
        return InvalidInput(
            f"from_classifier: the folder {name!r} cannot be loaded ({type(error).__name__}); give "
            "one with config.json, model.safetensors of that shape and the tokenizer"
        )
    return InvalidInput(
        f"from_classifier: {name!r} is neither a folder nor on a hub that can be reached; "
        "give one of the two"
    )
