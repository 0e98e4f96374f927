"""The joint loss of all exits, and which layers each of them may train.

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
    """Return the loss of all exits together.

    ``sum`` is the paper's eq. 1: L = Σ L_i, the plain sum of the exits' cross-entropies; so is
    ``segment``, for a model that `isolate_segments` has changed. ``depth`` is what its authors'
    code computes: Σ i·L_i / Σ i, the mean weighted by depth.

    With ``distil`` > 0 an exit's loss is (1 − distil)·L_i + distil·T²·KL(teacher ‖ exit i) at
    temperature T = `SOFTNESS`. The teacher is ``teacher_BC``, logits of another model, for every
    exit; without it, it is this model's last exit, for every exit but the last.
    """
    loss_E = torch.stack(
        [nn.functional.cross_entropy(logits_BC.float(), labels_B) for logits_BC in logits_EBC]
    )
    if distil:
        soft_EBC = (logits_EBC.float() / SOFTNESS).log_softmax(-1)
        if teacher_BC is None:
            target_BC, pupils = soft_EBC[-1].detach(), len(soft_EBC) - 1
        else:
            target_BC, pupils = (teacher_BC.float() / SOFTNESS).log_softmax(-1), len(soft_EBC)
        divergence_E = torch.stack(
            [
                nn.functional.kl_div(soft_BC, target_BC, log_target=True, reduction="batchmean")
                for soft_BC in soft_EBC[:pupils]
            ]
        )
        taught_E = (1 - distil) * loss_E[:pupils] + distil * SOFTNESS**2 * divergence_E
        loss_E = torch.cat([taught_E, loss_E[pupils:]])
    if loss != "depth":
        return loss_E.sum()
    depth_E = torch.arange(1, len(loss_E) + 1, dtype=loss_E.dtype)
    return (depth_E * loss_E).sum() / depth_E.sum()


def isolate_segments(model: MultiExitClassifier, boundaries: Iterable[int]) -> None:
    """Keep gradients within a tier: each tier's exits train that tier's own layers only.

    ``boundaries`` are m and n: no gradient passes from layer m + 1 to m, nor from n + 1 to n.
    """

    def detached(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].detach(), *args[1:])

    for boundary in boundaries:
        model.encoder.encoder.layer[boundary].register_forward_pre_hook(detached)
