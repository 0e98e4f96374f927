"""Training from a fine-tuned classifier: its answers, its labels, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    GPT2Config,
)

from lab.data.examples import load_examples
from lab.evaluate.samples import samples_of_bundle
from lab.export import layers
from lab.export.bundle import export_run
from lab.models.classifiers import load_classifier, read_classifier
from lab.models.exit_heads import ExitShape
from lab.models.run import Run
from lab.train import trainer
from lab.train.early_stopping import rank
from lab.train.initial_model import task_of
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.bundle.loading import load_bundle
from shared.errors import InvalidInput
from shared.inference.tokenizer import TextEncoder
from tests.support.tiny_classifiers import CONFIGS, POSITIONS, fine_tune, make_classifier
from tests.support.topics import TOPICS, make_topics, write_csv, write_topics

EXPORT_OPTIONS = {
    "mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None, "max_tokens": POSITIONS,
}  # fmt: skip


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 200 texts in three classes."""
    return write_topics(tmp_path_factory.mktemp("topics") / "topics.csv", 200)


@pytest.fixture(scope="module", params=list(CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    """Each encoder family."""
    return str(request.param)


@pytest.fixture(scope="module")
def classifier(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the family with random weights."""
    return make_classifier(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier with random weights; tests must not change it."""
    return make_classifier("bert", tmp_path_factory.mktemp("bert-classifier"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier fine-tuned on other texts of the topics; tests must not change it."""
    folder = tmp_path_factory.mktemp("tuned")
    make_classifier("bert", folder, initializer_range=0.05)
    fine_tune(folder, make_topics(300, seed=31), epochs=4, learning_rate=1e-3)
    return folder


def settings_of(topics: Path, classifier: Path, **options: Any) -> TrainSettings:
    """Return settings of one epoch from the classifier, with the exits alone trained."""
    settings = TrainSettings(
        "topics",
        str(topics),
        str(classifier),
        text_field="text",
        labels=list(read_classifier(str(classifier)).labels),
        from_classifier=str(classifier),
        freeze_backbone=True,
        epochs=1,
        learning_rate=1e-2,
        max_tokens=POSITIONS,
        bf16=False,
    )
    return replace(settings, **options)


@pytest.fixture(scope="module")
def frozen_run(classifier: Path, topics: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the classifier with its backbone frozen."""
    folder = tmp_path_factory.mktemp("frozen") / "run"
    train(settings_of(topics, classifier), folder)
    return Run(folder)


def original(folder: Path) -> Any:
    """Return the classifier in fp64: rounding is then far below any tolerance on every CPU."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model.double().eval()


def test_frozen_backbone_answers_exactly_like_the_classifier(
    frozen_run: Run, classifier: Path
) -> None:
    """The weights are equal bit by bit, and so are the logits up to the rounding of fp64."""
    model, theirs = frozen_run.model, original(classifier)
    head = frozen_run.model.family.classifier_head(theirs.float())
    hidden, _, last = model.exit_heads[-1].children()
    for mine, yours in ((hidden, head.hidden), (last, head.last)):
        assert torch.equal(mine.weight, yours.weight)
        assert torch.equal(mine.bias, yours.bias)
    encoder = theirs.base_model.state_dict()
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, encoder[name]), name
    rows = make_topics(24, seed=8)
    ids, mask = token_ids(frozen_run, [text for text, _ in rows])
    model.double()
    try:
        with torch.inference_mode():
            ours_EBC = model({"input_ids": ids, "attention_mask": mask})
            theirs_BC = theirs.double()(input_ids=ids, attention_mask=mask).logits
    finally:
        model.float()
    torch.testing.assert_close(ours_EBC[-1], theirs_BC, rtol=1e-9, atol=1e-9)
    assert theirs_BC.argmax(-1).unique().numel() > 1, "a constant answer would prove nothing"


def token_ids(run: Run, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of the texts, padded, and their mask, with the run's own tokenizer file."""
    rows = [TextEncoder(run.tokenizer_file, POSITIONS).encode(text) for text in texts]
    longest = max(len(row.ids_T) for row in rows)
    pad = run.model.encoder.config.pad_token_id
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids_T)] = torch.as_tensor(row.ids_T)
        mask[number, : len(row.ids_T)] = 1
    return ids, mask


@pytest.mark.parametrize("bits", [None, 8])
def test_exported_bundle_answers_like_the_classifier(
    bits: int | None,
    frozen_run: Run,
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In fp32 probabilities are equal; in 8 bits answers are, unless the margin is small.

    Random weights are the hardest case for 8 bits: they are far larger than trained ones.
    """
    monkeypatch.setattr(layers, "write_layers", partial(layers.write_layers, bits=bits))
    export_run(frozen_run, tmp_path / "bundle", None, **EXPORT_OPTIONS)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.labels == TOPICS
    examples = frozen_run.split().train
    exported_NC = samples_of_bundle(bundle, examples).probabilities_NEC[:, -1]
    ids, mask = token_ids(frozen_run, [row.text for row in examples])
    with torch.inference_mode():
        logits_NC = original(classifier)(input_ids=ids, attention_mask=mask).logits
    expected_NC = logits_NC.softmax(-1).numpy()
    second_N, first_N = np.sort(expected_NC, 1)[:, -2:].T
    clear_N = first_N - second_N > (0.001 if bits is None else 0.3)
    assert clear_N.sum() > 20
    np.testing.assert_array_equal(exported_NC[clear_N].argmax(1), expected_NC[clear_N].argmax(1))
    if bits is None:
        np.testing.assert_allclose(exported_NC, expected_NC, atol=1e-4)
    assert np.abs(exported_NC - expected_NC).mean() < 0.03


def test_frozen_backbone_trains_the_other_exits(tuned: Path, topics: Path, tmp_path: Path) -> None:
    facts = train(settings_of(topics, tuned, epochs=4), tmp_path / "run")
    *earlier, last = facts["validation_accuracy_by_exit"]
    logged = json.loads((tmp_path / "run" / "epochs.json").read_text()).values()
    assert {epoch["accuracy"][-1] for epoch in logged} == {last}, "full depth never changes"
    means = [sum(epoch["accuracy"][:-1]) for epoch in logged]
    assert sum(earlier) == max(means), "the epoch with the best trained exits is kept"
    assert max(logged, key=rank)["accuracy"] == facts["validation_accuracy_by_exit"]
    assert np.mean(earlier) > 60, "a third is right by chance"


def test_without_freezing_all_weights_train_from_the_classifiers(
    bert: Path, topics: Path, tmp_path: Path
) -> None:
    """With a tiny learning rate every weight moves, but stays close to the classifier's."""
    settings = settings_of(topics, bert, freeze_backbone=False, learning_rate=1e-5)
    facts = train(settings, tmp_path / "run")
    assert facts["from_classifier"] == str(bert)
    before, after = load_classifier(str(bert), ExitShape()), Run(tmp_path / "run").model
    new = after.state_dict()
    for name, weight in before.state_dict().items():
        if name.startswith(("encoder", f"exit_heads.{before.layers - 1}")):
            torch.testing.assert_close(new[name], weight, rtol=0, atol=1e-3)
    for name in ("exit_heads.2.0.weight", "exit_heads.2.2.weight"):
        assert not torch.equal(before.state_dict()[name], new[name])
    query = "encoder.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before.state_dict()[query], new[query])


def examples_of(labels: list[str], classifier: Path, tmp_path: Path) -> list[int]:
    """Return the numbers that labels of the data have for the classifier."""
    rows = [(f"the team played match {number}", label) for number, label in enumerate(labels * 4)]
    file = write_csv(tmp_path / "some.csv", rows)
    settings = settings_of(file, classifier)
    task = task_of(settings)
    return [row.label for row in load_examples(str(file), task, "train")[: len(labels)]]


def test_labels_of_the_data_are_the_classifiers_names_or_indices(
    bert: Path, topics: Path, tmp_path: Path
) -> None:
    assert read_classifier(str(bert)).labels == TOPICS
    assert examples_of(["météo", "sport"], bert, tmp_path) == [2, 0]
    assert examples_of(["2", "0"], bert, tmp_path) == [2, 0]
    with pytest.raises(InvalidInput, match=r"has label 'Sport'; .*sport, cooking, météo"):
        examples_of(["Sport"], bert, tmp_path)
    with pytest.raises(InvalidInput, match=r"has label '3'; .*sport, cooking, météo, or 0 to 2"):
        examples_of(["3"], bert, tmp_path)
    with pytest.raises(InvalidInput, match=r"labels: .* has sport, cooking, météo, not sport, b;"):
        task_of(settings_of(topics, bert, labels=["sport", "b"]))


def test_default_names_are_kept_and_taken_by_index(tmp_path: Path) -> None:
    unnamed = make_classifier("bert", tmp_path / "unnamed", labels=None)
    assert read_classifier(str(unnamed)).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert examples_of(["1", "LABEL_2"], unnamed, tmp_path) == [1, 2]


def test_data_may_lack_classes(bert: Path, tmp_path: Path) -> None:
    """The bundle of such a run still knows every label of the classifier."""
    rows = [(text, label) for text, label in make_topics(300, seed=6) if label != "cooking"]
    file = write_csv(tmp_path / "two.csv", rows)
    train(settings_of(file, bert), tmp_path / "run")
    export_run(Run(tmp_path / "run"), tmp_path / "bundle", None, **EXPORT_OPTIONS)
    assert load_bundle(tmp_path / "bundle").manifest.labels == TOPICS


def test_frozen_encoder_without_a_classifier_trains_every_exit(
    bert: Path, topics: Path, tmp_path: Path
) -> None:
    settings = settings_of(topics, bert, from_classifier=None)
    train(settings, tmp_path / "run")
    model, before = Run(tmp_path / "run").model, AutoModel.from_pretrained(bert)
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, before.state_dict()[name])
    assert model.shapes == (ExitShape("mean"),) * 3


def test_frozen_backbone_has_no_dropout_and_no_gradient(bert: Path) -> None:
    model = load_classifier(str(bert), ExitShape())
    model.freeze_backbone(last_exit=True)
    model.train()
    inputs = {"input_ids": torch.arange(5, 25)[None], "attention_mask": torch.ones(1, 20).long()}
    logits_EBC = model(inputs)
    torch.testing.assert_close(logits_EBC[-1], model(inputs)[-1], rtol=0, atol=0)
    assert not torch.equal(logits_EBC[0], model(inputs)[0]), "the trained exits have dropout"
    logits_EBC.sum().backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {name.split(".")[1] for name in trained} == {"0", "1"}
    assert {name.split(".")[0] for name in trained} == {"exit_heads"}


def test_interrupted_training_of_the_exits_resumes(
    bert: Path, topics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(topics, bert, epochs=2)
    train(settings, tmp_path / "whole", checkpoint_steps=3)
    save = trainer.save_checkpoint

    saved: list[Any] = []

    def save_then_stop(*arguments: Any) -> None:
        save(*arguments)
        saved.append(arguments)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_checkpoint", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "stopped", checkpoint_steps=3)
    train(settings, tmp_path / "stopped", checkpoint_steps=3)
    whole, resumed = (
        load_file(tmp_path / name / "model" / "weights.safetensors")
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def rewrite(folder: Path, **changes: Any) -> Path:
    """Change fields of ``config.json``."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def without_head(folder: Path) -> Path:
    """Remove the weights of the head, as in a folder saved from the bare encoder."""
    file = folder / "model.safetensors"
    weights = {name: w for name, w in load_file(file).items() if "classifier" not in name}
    save_file(weights, file, {"format": "pt"})
    return folder


def save_as(auto: Any) -> Callable[[Path], Path]:
    """Return a function that saves the encoder of a folder as another architecture."""

    def change(folder: Path) -> Path:
        auto.from_pretrained(folder).save_pretrained(folder)
        return folder

    return change


def gpt2(folder: Path) -> Path:
    """Replace the config by that of a decoder."""
    GPT2Config(architectures=["GPT2ForSequenceClassification"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (save_as(AutoModel), "BertModel, not a fine-tuned classifier; give a .* is for --encoder"),
        (save_as(AutoModelForMaskedLM), "BertForMaskedLM, not a fine-tuned classifier"),
        (save_as(AutoModelForQuestionAnswering), "BertForQuestionAnswering, not a fine-tuned"),
        (gpt2, "GPT2ForSequenceClassification, not a fine-tuned .* BertForSequenceClassification"),
        (lambda f: rewrite(f, architectures=None), "without named architecture, not a fine-tuned"),
        (lambda f: rewrite(f, problem_type="regression"), "is a regression model, whose output"),
        (
            lambda f: rewrite(f, id2label={"0": "score"}, label2id={"score": 0}),
            "is a regression model, whose output is a number",
        ),
        (
            lambda f: rewrite(f, problem_type="multi_label_classification"),
            "gives a text several labels .* give a single-label classifier",
        ),
        (without_head, "the weights of .* lack classifier.bias, classifier.weight; give the"),
        (
            lambda f: rewrite(f, id2label={"0": "a", "1": "b", "2": "a"}),
            "does not name each of its 3 classes once",
        ),
        (
            lambda f: rewrite(f, id2label={"0": "a", "1": "b\n", "2": "c"}),
            r"id2label in config\.json of .*'b\\n' is empty, or begins or ends with white space",
        ),
        (lambda f: rewrite(f, architectures=5), "holds 5, not a fine-tuned classifier"),
        (lambda f: rewrite(f, architectures="Bert"), "holds Bert, not a fine-tuned classifier"),
        (lambda f: rewrite(f, hidden_size=64), "cannot be loaded .* give one with config.json"),
    ],
)
def test_other_models_are_refused(
    change: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    folder = change(make_classifier("bert", tmp_path / "classifier"))
    with pytest.raises(InvalidInput, match=rf"^from_classifier: .*{message}"):
        load_classifier(str(folder), ExitShape())


def test_name_that_is_neither_folder_nor_reachable_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^from_classifier: '/no/such' is neither a folder nor"):
        read_classifier("/no/such")
