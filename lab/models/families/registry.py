"""The encoder families that can be trained and exported, by ``model_type``."""

from __future__ import annotations

from typing import Any

from lab.models.families.base import EncoderFamily
from lab.models.families.bert import Bert
from lab.models.families.distilbert import DistilBert
from lab.models.families.electra import Electra
from lab.models.families.mpnet import MPNet
from lab.models.families.roberta import Roberta
from shared.errors import InvalidInput

FAMILIES: tuple[type[EncoderFamily], ...] = (Bert, DistilBert, Roberta, MPNet, Electra)
CLASSIFIERS = tuple(name for family in FAMILIES for name in family.classifiers)
"""Classes of ``transformers`` for fine-tuned classifiers of the families."""
MODEL_TYPES = {model_type: family for family in FAMILIES for model_type in family.model_types}


def family_of(config: Any) -> EncoderFamily:
    """Return the family of an encoder's config; raises `InvalidInput` for unsupported encoders."""
    family = MODEL_TYPES.get(config.model_type)
    if family is None:
        raise InvalidInput(
            f"encoder: {config.model_type} is not supported; choose one of the kinds "
            f"{', '.join(MODEL_TYPES)}"
        )
    checked = family(config)
    checked.check()
    return checked
