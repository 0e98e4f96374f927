"""A pretrained encoder with an exit head after every layer (paper, section III).

Shape suffixes: B rows, T tokens, H hidden size, E exits, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from lab.data.tasks import task_of_facts
from lab.models.encoders import load_encoder
from lab.models.exit_heads import ExitShape, facts_of, make_head, pool, shapes_of
from lab.models.families import family_of
from shared.errors import InvalidInput


class MultiExitClassifier(nn.Module):
    """An encoder with an exit head after every layer.

    All exits have the shape of ``pooling`` and ``head_hidden``, or each its own of ``shapes``
    (`ExitShape`).
    """

    encoder: Any

    def __init__(
        self,
        encoder: Any,
        classes: int,
        pooling: str = "mean",
        head_hidden: int = 0,
        shapes: Sequence[ExitShape] | None = None,
    ) -> None:
        super().__init__()
        self.family = family_of(encoder.config)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # the exits pool their own layer
        self.encoder = encoder
        config = encoder.config
        self.dropout = nn.Dropout(self.family.dropout)
        layers = config.num_hidden_layers
        self.shapes = tuple(shapes or [ExitShape(pooling, head_hidden)] * layers)
        self.exit_heads = nn.ModuleList(
            make_head(shape, config.hidden_size, classes, config.initializer_range)
            for shape in self.shapes
        )
        self.classes = classes
        self.frozen_backbone = False

    @property
    def layers(self) -> int:
        """Number of transformer layers and of exits, l."""
        return len(self.exit_heads)

    @property
    def pad_id(self) -> int:
        """Token id of padding; the attention mask excludes it."""
        return int(self.encoder.config.pad_token_id or 0)

    def freeze_backbone(self, last_exit: bool) -> None:
        """Exclude the encoder from training, and with ``last_exit`` the last exit head too.

        The encoder then stays in evaluation mode, without dropout, when the exits train.
        """
        self.frozen_backbone = True
        self.encoder.requires_grad_(False)
        self.exit_heads[-1].requires_grad_(not last_exit)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, except for a frozen encoder, or to evaluation mode."""
        super().train(mode)
        if self.frozen_backbone:
            self.encoder.eval()
        return self

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of every exit, ``logits_EBC``."""
        hidden = self.encoder(**inputs, output_hidden_states=True).hidden_states[1:]
        mask_BT = inputs["attention_mask"]
        return torch.stack(
            [
                self._exit(head, pool(hidden_BTH, mask_BT, shape.pooling))
                for head, shape, hidden_BTH in zip(
                    self.exit_heads, self.shapes, hidden, strict=True
                )
            ]
        )

    def _exit(self, head: nn.Module, pooled_BH: Tensor) -> Tensor:
        trained = any(weight.requires_grad for weight in head.parameters())
        logits_BC: Tensor = head(self.dropout(pooled_BH) if trained else pooled_BH)
        return logits_BC


def new_model(
    encoder: str, classes: int, pooling: str, head_hidden: int = 0
) -> MultiExitClassifier:
    """Return a pretrained encoder with untrained exit heads."""
    return MultiExitClassifier(load_encoder(encoder), classes, pooling, head_hidden)


def save_model(model: MultiExitClassifier, folder: Path, facts: dict[str, Any]) -> None:
    """Write the encoder's config, all weights (safetensors), and ``facts`` with exit shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "weights.safetensors")
    facts = facts | {"exits": facts_of(model.shapes)}
    (folder / "dimee.json").write_text(json.dumps(facts, indent=2) + "\n")


def load_model(folder: Path) -> tuple[MultiExitClassifier, dict[str, Any]]:
    """Load what `save_model` wrote: the model in evaluation mode, and its facts."""
    facts_file = folder / "dimee.json"
    if not facts_file.is_file():
        raise InvalidInput(f"run: {folder} holds no trained model; run: dimee train --out …")
    facts: dict[str, Any] = json.loads(facts_file.read_text())
    config = AutoConfig.from_pretrained(folder)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    classes = len(task_of_facts(facts).labels)
    shapes = shapes_of(facts, encoder.config.num_hidden_layers)
    model = MultiExitClassifier(encoder, classes, shapes=shapes)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval(), facts
