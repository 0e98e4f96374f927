"""A pretrained BERT-like encoder with an exit head after every layer (paper, section III).

Shape suffixes: B rows, T tokens, H hidden size, E exits, C classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from lab.encoders import check_bert_like, load_encoder
from lab.tasks import get_task
from shared.errors import InvalidInput

POOLINGS = ("mean", "cls")


class MultiExitClassifier(nn.Module):
    """An encoder whose every layer is followed by an `ExitHead`: a linear layer on what it pools.

    ``pooling`` is ``mean`` over the text's tokens (what sentence encoders were trained for) or
    ``cls``, the first token alone (what BERT was).
    """

    encoder: Any

    def __init__(self, encoder: Any, classes: int, pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InvalidInput(f"pooling: {pooling!r} is not known; choose mean or cls")
        self.pooling = pooling
        check_bert_like(encoder.config)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # the exits pool by themselves
        self.encoder = encoder
        config = encoder.config
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        heads = [nn.Linear(config.hidden_size, classes) for _ in range(config.num_hidden_layers)]
        for head in heads:
            nn.init.normal_(head.weight, std=config.initializer_range)
            nn.init.zeros_(head.bias)
        self.exit_heads = nn.ModuleList(heads)
        self.classes = classes

    @property
    def layers(self) -> int:
        """l, the number of transformer layers and of exits."""
        return len(self.exit_heads)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of every exit, ``logits_EBC``."""
        hidden = self.encoder(**inputs, output_hidden_states=True).hidden_states[1:]
        mask_BT1 = inputs["attention_mask"].unsqueeze(-1)

        def pool(hidden_BTH: Tensor) -> Tensor:
            if self.pooling == "cls":
                return hidden_BTH[:, 0]
            return (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)

        return torch.stack(
            [
                head(self.dropout(pool(hidden_BTH)))
                for head, hidden_BTH in zip(self.exit_heads, hidden, strict=True)
            ]
        )


LOSSES = ("sum", "depth")


def joint_loss(logits_EBC: Tensor, labels_B: Tensor, loss: str = "sum") -> Tensor:
    """The loss of all exits together.

    ``sum`` is the paper's eq. 1: L = Σ L_i, the plain sum of the exits' cross-entropies. ``depth``
    is what its authors' code computes: Σ i·L_i / Σ i, the mean weighted by depth.
    """
    loss_E = torch.stack(
        [nn.functional.cross_entropy(logits_BC.float(), labels_B) for logits_BC in logits_EBC]
    )
    if loss == "sum":
        return loss_E.sum()
    depth_E = torch.arange(1, len(loss_E) + 1, dtype=loss_E.dtype)
    return (depth_E * loss_E).sum() / depth_E.sum()


def new_model(encoder: str, classes: int, pooling: str) -> MultiExitClassifier:
    """A pretrained encoder with untrained exit heads."""
    return MultiExitClassifier(load_encoder(encoder), classes, pooling)


def save_model(model: MultiExitClassifier, folder: Path, facts: dict[str, Any]) -> None:
    """Write the whole model: the encoder's config, all weights (safetensors) and ``facts``."""
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "dimee.json").write_text(json.dumps(facts, indent=2) + "\n")


def load_model(folder: Path) -> tuple[MultiExitClassifier, dict[str, Any]]:
    """Read what `save_model` wrote; the model is in evaluation mode."""
    facts_file = folder / "dimee.json"
    if not facts_file.is_file():
        raise InvalidInput(f"run: {folder} holds no trained model; run: dimee train --out …")
    facts: dict[str, Any] = json.loads(facts_file.read_text())
    config = AutoConfig.from_pretrained(folder)
    encoder = AutoModel.from_config(config, dtype=torch.float32)
    classes = len(get_task(facts["task"]).labels)
    model = MultiExitClassifier(encoder, classes, facts.get("pooling", "cls"))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval(), facts
