"""A pretrained encoder with an exit head after every layer (paper, section III).

Shape suffixes: B rows, T tokens, H hidden size, E exits, C classes.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from lab.data.tasks import get_task
from lab.models.encoders import load_encoder
from lab.models.families import family_of
from shared.errors import InvalidInput

POOLINGS = ("mean", "cls", "both")


class MultiExitClassifier(nn.Module):
    """An encoder with an exit head after every layer: a linear layer on the pooled tokens.

    ``pooling`` is ``mean`` over the text's tokens (as sentence encoders were trained), ``cls``, the
    first token alone (as BERT was trained), or ``both``, concatenated. ``head_hidden`` > 0 adds a
    tanh layer of that size before the linear one.
    """

    encoder: Any

    def __init__(
        self, encoder: Any, classes: int, pooling: str = "mean", head_hidden: int = 0
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InvalidInput(f"pooling: {pooling!r} is not known; choose mean, cls or both")
        self.pooling = pooling
        self.family = family_of(encoder.config)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # the exits pool their own layer
        self.encoder = encoder
        config = encoder.config
        self.dropout = nn.Dropout(self.family.dropout)
        size = config.hidden_size * (2 if pooling == "both" else 1)
        sizes = [size, head_hidden, classes] if head_hidden else [size, classes]
        heads = [_head(sizes, config.initializer_range) for _ in range(config.num_hidden_layers)]
        self.exit_heads = nn.ModuleList(heads)
        self.classes = classes

    @property
    def layers(self) -> int:
        """Number of transformer layers and of exits, l."""
        return len(self.exit_heads)

    @property
    def pad_id(self) -> int:
        """Token id of padding; the attention mask excludes it."""
        return int(self.encoder.config.pad_token_id or 0)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of every exit, ``logits_EBC``."""
        hidden = self.encoder(**inputs, output_hidden_states=True).hidden_states[1:]
        mask_BT1 = inputs["attention_mask"].unsqueeze(-1)

        def pool(hidden_BTH: Tensor) -> Tensor:
            if self.pooling == "cls":
                return hidden_BTH[:, 0]
            mean_BH = (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
            if self.pooling == "mean":
                return mean_BH
            return torch.cat([hidden_BTH[:, 0], mean_BH], -1)

        return torch.stack(
            [
                head(self.dropout(pool(hidden_BTH)))
                for head, hidden_BTH in zip(self.exit_heads, hidden, strict=True)
            ]
        )


def _head(sizes: list[int], deviation: float) -> nn.Module:
    linear = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    for part in linear:
        nn.init.normal_(part.weight, std=deviation)
        nn.init.zeros_(part.bias)
    return linear[0] if len(linear) == 1 else nn.Sequential(linear[0], nn.Tanh(), linear[1])


def last_linear(head: nn.Module) -> nn.Linear:
    """Return the layer of an exit head that computes the logits."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(last, nn.Linear)
    return last


def new_model(
    encoder: str, classes: int, pooling: str, head_hidden: int = 0
) -> MultiExitClassifier:
    """Return a pretrained encoder with untrained exit heads."""
    return MultiExitClassifier(load_encoder(encoder), classes, pooling, head_hidden)


def save_model(model: MultiExitClassifier, folder: Path, facts: dict[str, Any]) -> None:
    """Write the encoder's config, all weights (safetensors) and ``facts``."""
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "dimee.json").write_text(json.dumps(facts, indent=2) + "\n")


def load_model(folder: Path) -> tuple[MultiExitClassifier, dict[str, Any]]:
    """Load what `save_model` wrote: the model in evaluation mode, and its facts."""
    facts_file = folder / "dimee.json"
    if not facts_file.is_file():
        raise InvalidInput(f"run: {folder} holds no trained model; run: dimee train --out …")
    facts: dict[str, Any] = json.loads(facts_file.read_text())
    config = AutoConfig.from_pretrained(folder)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    classes = len(get_task(facts["task"]).labels)
    pooling, head_hidden = facts.get("pooling", "cls"), facts.get("head_hidden", 0)
    model = MultiExitClassifier(encoder, classes, pooling, head_hidden)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval(), facts
