"""The joint loss of all exits, and the isolation of the tiers' layers.

Shape suffixes: B rows, E exits, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lab.models.model import MultiExitClassifier

LOSSES = ("sum", "depth", "segment")
SOFTNESS = 2.0
"""Temperature of the distillation (Hinton et al. 2015)."""


def joint_loss(
    logits_EBC: Tensor,
    labels_B: Tensor,
    loss: str = "sum",
    distil: float = 0.0,
    teacher_BC: Tensor | None = None,
) -> Tensor:
    """Return the joint loss of all exits.

    ``sum`` is the paper's eq. 1: L = Σ L_i, the plain sum of the exits' cross-entropies.
    ``segment`` is the same, for a model that `isolate_segments` has changed. ``depth`` is the loss
    of the authors' code: Σ i·L_i / Σ i, the mean weighted by depth.

    With ``distil`` > 0 an exit's loss is (1 − distil)·L_i + distil·T²·KL(teacher ‖ exit i) at
    temperature T = `SOFTNESS`. The teacher is ``teacher_BC``, logits of another model, for every
    exit; without it, the teacher is this model's last exit, for every exit but the last.
    """
    loss_E = torch.stack(
        [nn.functional.cross_entropy(logits_BC.float(), labels_B) for logits_BC in logits_EBC]
    )
    if distil:
        soft_EBC = (logits_EBC.float() / SOFTNESS).log_softmax(-1)
        if teacher_BC is None:
            target_BC, taught = soft_EBC[-1].detach(), len(soft_EBC) - 1
        else:
            target_BC, taught = (teacher_BC.float() / SOFTNESS).log_softmax(-1), len(soft_EBC)
        divergence_E = torch.stack(
            [
                nn.functional.kl_div(soft_BC, target_BC, log_target=True, reduction="batchmean")
                for soft_BC in soft_EBC[:taught]
            ]
        )
        taught_E = (1 - distil) * loss_E[:taught] + distil * SOFTNESS**2 * divergence_E
        loss_E = torch.cat([taught_E, loss_E[taught:]])
    if loss != "depth":
        return loss_E.sum()
    depth_E = torch.arange(1, len(loss_E) + 1, dtype=loss_E.dtype, device=loss_E.device)
    return (depth_E * loss_E).sum() / depth_E.sum()


def isolate_segments(model: MultiExitClassifier, boundaries: Iterable[int]) -> None:
    """Stop gradients between tiers, so that each tier's exits train only that tier's layers.

    ``boundaries`` are m and n: no gradient passes from layer m + 1 to m, or from n + 1 to n.
    """

    def detached(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].detach(), *args[1:])

    layers = model.family.layers(model.encoder)
    for boundary in boundaries:
        layers[boundary].register_forward_pre_hook(detached)
