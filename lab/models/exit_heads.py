"""Exit heads: the pooling of a layer's tokens, and the layers that compute the logits from it.

Shape suffixes: B rows, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import InvalidInput

POOLINGS = ("mean", "cls", "both")
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


@dataclass(frozen=True)
class ExitShape:
    """Pooling and layers of one exit head; the exits of a model may have different shapes."""

    pooling: str = "mean"
    """``mean`` over the text's tokens (as sentence encoders were trained), ``cls``, the first token
    alone (as BERT was trained), or ``both``, concatenated."""
    hidden: int = 0
    """Units of a hidden layer before the layer of the logits; 0 for none."""
    activation: str = "tanh"
    """Activation of the hidden layer: ``tanh``, ``relu`` or ``gelu``."""

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InvalidInput(f"pooling: {self.pooling!r} is not known; choose mean, cls or both")
        if self.activation not in ACTIVATIONS:
            raise InvalidInput(
                f"activation: {self.activation!r} is not known; choose tanh, relu or gelu"
            )


def shapes_of(facts: dict[str, Any], layers: int) -> tuple[ExitShape, ...]:
    """Return the exits' shapes from a run's facts; older runs record one shape for all exits."""
    if exits := facts.get("exits"):
        return tuple(ExitShape(**shape) for shape in exits)
    shape = ExitShape(facts.get("pooling", "cls"), facts.get("head_hidden", 0))
    return (shape,) * layers


def facts_of(shapes: Sequence[ExitShape]) -> list[dict[str, Any]]:
    """Return the exits' shapes as a run's facts hold them."""
    return [asdict(shape) for shape in shapes]


def make_head(shape: ExitShape, size: int, classes: int, deviation: float) -> nn.Module:
    """Return an untrained head for a layer of hidden size ``size``: a linear layer, or two.

    Weights are normal with standard deviation ``deviation``.
    """
    inputs = size * (2 if shape.pooling == "both" else 1)
    if not shape.hidden:
        return _linear(inputs, classes, deviation)
    return nn.Sequential(
        _linear(inputs, shape.hidden, deviation),
        ACTIVATIONS[shape.activation](),
        _linear(shape.hidden, classes, deviation),
    )


def _linear(inputs: int, outputs: int, deviation: float) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=deviation)
    nn.init.zeros_(linear.bias)
    return linear


def pool(hidden_BTH: Tensor, mask_BT: Tensor, pooling: str) -> Tensor:
    """Return the input of an exit head; ``mask_BT`` is 1 for tokens and 0 for padding."""
    if pooling == "cls":
        return hidden_BTH[:, 0]
    mask_BT1 = mask_BT.unsqueeze(-1)
    mean_BH = (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
    return mean_BH if pooling == "mean" else torch.cat([hidden_BTH[:, 0], mean_BH], -1)


def linear_layers(head: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of an exit head, in order."""
    return [part for part in head.modules() if isinstance(part, nn.Linear)]


def last_linear(head: nn.Module) -> nn.Linear:
    """Return the layer of an exit head that computes the logits."""
    return linear_layers(head)[-1]


def activation_of(head: nn.Module) -> str:
    """Return the name of the activation of an exit head with a hidden layer."""
    kinds = {kind: name for name, kind in ACTIVATIONS.items()}
    return next(kinds[type(part)] for part in head.modules() if type(part) in kinds)
