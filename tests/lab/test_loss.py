"""The joint loss: distillation, and segments that do not pull each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab.models.model import new_model
from lab.train.loss import SOFTNESS, isolate_segments, joint_loss
from lab.train.trainer import TrainSettings, train
from shared.errors import InvalidInput


def test_distillation_by_hand() -> None:
    logits_EBC = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]], requires_grad=True)
    loss = joint_loss(logits_EBC, torch.tensor([0]), distil=0.25)
    teacher = torch.tensor([2.0 / SOFTNESS, 0.0]).softmax(-1)
    divergence = (teacher * (teacher / 0.5).log()).sum()
    last = -torch.tensor([2.0, 0.0]).log_softmax(-1)[0]
    expected = 0.75 * torch.tensor(2.0).log() + 0.25 * SOFTNESS**2 * divergence + last
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_teaches_every_exit_the_last_one_too() -> None:
    """By hand: (1 − d)·CE + d·T²·KL(teacher ‖ exit) for both exits."""
    logits_EBC = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    teacher_BC = torch.tensor([[3.0, 0.0]])
    loss = joint_loss(logits_EBC, torch.tensor([0]), distil=0.25, teacher_BC=teacher_BC)
    target = (teacher_BC[0] / SOFTNESS).softmax(-1)
    expected = torch.tensor(0.0)
    for logits_C in logits_EBC[:, 0]:
        soft = (logits_C / SOFTNESS).log_softmax(-1)
        divergence = (target * (target.log() - soft)).sum()
        expected += 0.75 * -logits_C.log_softmax(-1)[0] + 0.25 * SOFTNESS**2 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_last_exit_does_not_learn_from_its_pupils() -> None:
    logits_EBC = torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]], requires_grad=True)
    alone_EBC = logits_EBC.detach().clone().requires_grad_()
    joint_loss(logits_EBC, torch.tensor([0]), distil=0.5).backward()  # type: ignore[no-untyped-call]
    joint_loss(alone_EBC, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert logits_EBC.grad is not None
    assert alone_EBC.grad is not None
    torch.testing.assert_close(logits_EBC.grad[-1], alone_EBC.grad[-1])
    assert not torch.equal(logits_EBC.grad[0], alone_EBC.grad[0])


@pytest.mark.parametrize(("exit_layer", "trained"), [(1, [1]), (2, [2]), (3, [3])])
def test_an_exit_trains_its_own_tier_only(
    exit_layer: int, trained: list[int], tiny_encoder: Path
) -> None:
    model = new_model(str(tiny_encoder), 2, "mean").eval()
    isolate_segments(model, (1, 2))
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
    }
    model(inputs)[exit_layer - 1].pow(2).sum().backward()
    weights = [layer.output.dense.weight for layer in model.encoder.encoder.layer]
    moved = [
        number
        for number, weight in enumerate(weights, start=1)
        if weight.grad is not None and weight.grad.abs().max() > 0
    ]
    assert moved == trained


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "segment", "mobile_layers": 3}, "m < n < l must hold"),
        ({"distil": 1.0}, "distil: 1 is not a share"),
        ({"head_hidden": -1}, "head_hidden: -1 is too few"),
        ({"teacher": "somewhere"}, "teacher: it teaches nothing at distil 0"),
        ({"teacher": "nowhere", "distil": 0.5}, "teacher: nowhere holds neither train_logits.npy"),
        ({"token_dropout": 1.0}, "token_dropout: 1 is not a share"),
    ],
)
def test_wrong_options_are_refused(
    wrong: dict[str, object], message: str, tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    options = {"task": "sst2", "data": str(tiny_data), "encoder": str(tiny_encoder), "bf16": False}
    with pytest.raises(InvalidInput, match=message):
        train(TrainSettings(**{**options, **wrong}), tmp_path / "run")  # type: ignore[arg-type]
