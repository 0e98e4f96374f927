"""The joint loss: eq. 1, depth weights, distillation, and isolated tiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.models.model import new_model
from lab.train.loss import SOFTNESS, isolate_segments, joint_loss
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.errors import InvalidInput
from tests.support.tiny_runs import fix_weights


def test_eq_1_is_the_plain_sum_over_exits() -> None:
    """Two exits, one sample of class 0: −ln(3/4) − ln(1/2), worked by hand."""
    logits_EBC = torch.log(torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]]]))
    loss = joint_loss(logits_EBC, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.2876821 + 0.6931472, abs=1e-6)


def test_depth_weighted_mean_of_the_authors_code() -> None:
    """The same two exits: (1 · 0.2877 + 2 · 0.6931) / 3."""
    logits_EBC = torch.log(torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]]]))
    loss = joint_loss(logits_EBC, torch.tensor([0]), "depth")
    assert loss.item() == pytest.approx((0.2876821 + 2 * 0.6931472) / 3, abs=1e-6)


def test_a_small_step_along_the_gradient_reduces_the_loss(tiny_encoder: Path) -> None:
    """A step of size t reduces it by t · |gradient|² to first order; here by 0.001."""
    model = fix_weights(new_model(str(tiny_encoder), 2, "mean"), 3).double().eval()
    inputs = {"input_ids": torch.tensor([[5, 12, 7], [10, 13, 9]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    labels_B = torch.tensor([1, 0])
    before = joint_loss(model(inputs), labels_B)
    before.backward()  # type: ignore[no-untyped-call]
    gradients = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
    step = 1e-3 / sum(float(gradient.pow(2).sum()) for _, gradient in gradients)
    with torch.no_grad():
        for weight, gradient in gradients:
            weight -= step * gradient
        after = joint_loss(model(inputs), labels_B)
    assert (before - after).item() == pytest.approx(1e-3, rel=0.1)


def test_distillation_by_hand() -> None:
    logits_EBC = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]], requires_grad=True)
    loss = joint_loss(logits_EBC, torch.tensor([0]), distil=0.25)
    teacher = torch.tensor([2.0 / SOFTNESS, 0.0]).softmax(-1)
    divergence = (teacher * (teacher / 0.5).log()).sum()
    last = -torch.tensor([2.0, 0.0]).log_softmax(-1)[0]
    expected = 0.75 * torch.tensor(2.0).log() + 0.25 * SOFTNESS**2 * divergence + last
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_external_teacher_teaches_every_exit() -> None:
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


def test_last_exit_as_teacher_gets_no_gradient_from_the_others() -> None:
    logits_EBC = torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]], requires_grad=True)
    alone_EBC = logits_EBC.detach().clone().requires_grad_()
    joint_loss(logits_EBC, torch.tensor([0]), distil=0.5).backward()  # type: ignore[no-untyped-call]
    joint_loss(alone_EBC, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert logits_EBC.grad is not None
    assert alone_EBC.grad is not None
    torch.testing.assert_close(logits_EBC.grad[-1], alone_EBC.grad[-1])
    assert not torch.equal(logits_EBC.grad[0], alone_EBC.grad[0])


@pytest.mark.parametrize(("exit_layer", "trained"), [(1, [1]), (2, [2]), (3, [3])])
def test_exit_trains_only_its_own_tier(
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
    with_gradient = [
        number
        for number, weight in enumerate(weights, start=1)
        if weight.grad is not None and weight.grad.abs().max() > 0
    ]
    assert with_gradient == trained


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "segment", "mobile_layers": 3}, "m < n < l must hold"),
        ({"distil": 1.0}, r"distil: 1 is not in \[0, 1\)"),
        ({"head_hidden": -1}, "head_hidden: -1 is too few"),
        ({"teacher": "somewhere"}, "teacher: it has no effect at distil 0"),
        ({"teacher": "nowhere", "distil": 0.5}, "teacher: nowhere holds neither train_logits.npy"),
        ({"token_dropout": 1.0}, r"token_dropout: 1 is not in \[0, 1\)"),
    ],
)
def test_wrong_options_are_refused(
    wrong: dict[str, Any], message: str, settings: TrainSettings, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        train(replace(settings, **wrong), tmp_path / "run")
