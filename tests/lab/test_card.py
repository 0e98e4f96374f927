"""The card of a bundle: its commands make the bundle again, and it speaks of the user's task."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import click
import pytest

from lab.cli.evaluate import evaluate
from lab.cli.refit import refit
from lab.cli.train import export, train
from lab.data.tasks import TASKS, all_facts_of_task
from lab.export.card import card_of, part_titles
from lab.export.commands import ALWAYS, EXPORT_DEFAULTS, WITHOUT_OPTION, commands, train_options
from lab.train.settings import TrainSettings
from shared.bundle.loading import Bundle, load_bundle
from shared.pricing.cost_model import CostModel
from tests.support.bundles import bundle_without_heads

OWN = {"task": "topics", "text_field": "body text", "hold_out": "texts", "split": "grouped"}
FIELDS = {field.name: field for field in fields(TrainSettings)}
Changed = Callable[..., Bundle]


@pytest.fixture
def changed(bundle: Bundle) -> Changed:
    """Return the shipped bundle with changed facts of its training, and other fields."""

    def change(facts: dict[str, Any] | None = None, **values: Any) -> Bundle:
        base = {k: v for k, v in bundle.manifest.training.items() if k in FIELDS}
        values["training"] = base | (facts or {})
        manifest = bundle.manifest.model_copy(update=values)
        return Bundle(bundle.path, manifest, bundle.bundle_id)

    return change


def parse(command: click.Command, line: str) -> dict[str, Any]:
    """Return the values that the command reads from a line of a card, by option."""
    words = shlex.split(line)
    assert words[0] == "dimee"
    context = command.make_context(words[1], words[2:])
    return {
        option: context.params[parameter.name]
        for parameter in command.params
        if parameter.name is not None
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


def option_of(name: str) -> click.Parameter | None:
    flag = f"--{name.replace('_', '-')}"
    return next((one for one in train.params if flag in one.opts), None)


def another(name: str) -> Any:
    """Return a value of a setting that its option allows and that is not its default."""
    option, default = option_of(name), FIELDS[name].default
    assert option is not None, f"the setting {name} has no option of dimee train"
    if isinstance(option.type, click.Choice):
        return next(choice for choice in option.type.choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(option.type, click.FloatRange | click.types.FloatParamType):
        return 0.25
    if isinstance(option.type, click.IntRange | click.types.IntParamType):
        return 9
    return "name with spaces"


def test_shipped_card_is_what_the_code_writes(bundle: Bundle) -> None:
    assert (bundle.path / "README.md").read_text(encoding="utf-8") == card_of(bundle)


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in WITHOUT_OPTION])
def test_every_setting_of_a_training_is_in_its_command(name: str) -> None:
    """``dimee train`` reads the value of a setting that is not the default from the command."""
    base = asdict(TrainSettings("topics", "folder", "encoder", text_field="text"))
    value = "folder" if name == "data" else another(name)
    facts = base | {name: value}
    read = parse(train, f"dimee train {train_options(facts)} --out RUN1")
    flag = f"--{name.replace('_', '-')}"
    assert read[flag] == ("DATA" if name == "data" else value)
    for other in ALWAYS:
        if other not in (name, "data") and not (name == "from_classifier" and other == "encoder"):
            assert read[f"--{other.replace('_', '-')}"] == base[other]


def test_settings_without_an_option_are_named() -> None:
    """A new setting needs an option, or a place in `WITHOUT_OPTION`."""
    for name in WITHOUT_OPTION:
        assert name == "start_from" or option_of(name) is None


def test_facts_of_an_older_run_have_the_defaults() -> None:
    facts = {"task": "sst2", "encoder": "e", "split": "glue"}
    read = parse(train, f"dimee train --data DATA {train_options(facts)} --out RUN1")
    for name, field in FIELDS.items():
        if field.default is not MISSING and name in ALWAYS and name not in facts:
            assert read[f"--{name.replace('_', '-')}"] == field.default


def test_paths_of_the_training_machine_are_not_in_the_card(changed: Changed) -> None:
    bundle = changed({"encoder": "/home/me/my-encoder"}, encoder="/home/me/my-encoder")
    assert "/home/me" not in card_of(bundle)
    assert "--encoder my-encoder" in card_of(bundle)
    assert card_of(bundle).startswith("# sst2 on my-encoder\n")


def test_run_that_started_from_another_has_both_commands(changed: Changed) -> None:
    first = asdict(TrainSettings("sst2", "d", "e", epochs=7))
    lines = commands(changed({"before": first, "start_from": "runs/first"}).manifest)
    assert "--epochs 7" in lines[0]
    assert lines[0].endswith("--out RUN1")
    assert lines[1].endswith("--start-from RUN1 --out RUN2")
    assert lines[2] == "dimee export RUN2 BUNDLE"


def test_options_of_the_export_are_in_its_command(changed: Changed, bundle: Bundle) -> None:
    layers = bundle.manifest.layers
    cost_model = asdict(CostModel.paper(layers, 3.0))
    del cost_model["layers"]
    accuracy = bundle.manifest.accuracy | {
        "loss": {
            "max_loss": 2.0,
            "lost": [1] * layers,
            "gained": [0] * layers,
            "interval": [[-1.0, 3.0]] * layers,
        }
    }
    made = changed(
        mobile_layers=1, edge_layers=5, mu=0.2, max_tokens=64, accuracy=accuracy,
        cost_model=cost_model,
    )  # fmt: skip
    line = commands(made.manifest)[-1]
    read = parse(export, line)
    assert (read["--mobile-layers"], read["--edge-layers"], read["--mu"]) == (1, 5, 0.2)
    assert (read["--max-tokens"], read["--cloud-fee"], read["--max-loss"]) == (64, 3.0, 2.0)
    card = card_of(made)
    assert "| 1 | 1 | 0 | 0.11 | -1.00 to 3.00 |" in card
    assert "refused if an interval lies above 2 points" in card


def test_defaults_of_the_export_are_those_of_its_command() -> None:
    defaults = {parameter.name: parameter.default for parameter in export.params}
    assert {name: defaults[name] for name in EXPORT_DEFAULTS} == EXPORT_DEFAULTS


def test_refitted_bundle_has_the_options_of_the_refit(changed: Changed, bundle: Bundle) -> None:
    prices = bundle.manifest.cost_model | {"offload_edge": 99.0}
    made = changed({"refitted": True}, mobile_layers=1, cost_model=prices, max_tokens=64)
    *_, exported, refitted = commands(made.manifest)
    assert exported == "dimee export RUN1 BUNDLE --max-tokens 64"
    read = parse(refit, refitted)
    assert (read["--mobile-layers"], str(read["--price-book"])) == (1, "PRICES")


def test_card_of_a_classifier_with_a_frozen_backbone(changed: Changed) -> None:
    facts = {"from_classifier": "my-classifier", "freeze_backbone": True, "encoder": "x"}
    card = card_of(changed(facts))
    assert card.startswith("# sst2 on my-classifier\n")
    assert "trained on a frozen encoder (eq. 1" in card
    assert "--from-classifier my-classifier --freeze-backbone" in card
    assert "--encoder" not in card


def own_bundle(changed: Changed, bundle: Bundle, split: str = "grouped", **facts: Any) -> Bundle:
    """Return a bundle of a task of the user's own."""
    return changed(
        OWN | {"split": split} | facts,
        task="topics",
        labels=("sport", "Kultur", "政治"),
        accuracy=bundle.manifest.accuracy | {"split": split},
    )


@pytest.mark.parametrize("split", ["paper", "grouped", "glue", "files"])
def test_card_of_an_own_task_does_not_speak_of_glue(
    split: str, changed: Changed, bundle: Bundle
) -> None:
    card = card_of(own_bundle(changed, bundle, split))
    text = card.replace("--split glue", "")  # the name of a kind of split
    assert "glue" not in text.lower()
    assert "sentence" not in text.lower()
    assert card.startswith("# topics on ")
    assert "Labels: sport, Kultur, 政治." in card
    assert "--task topics --data DATA" in card


def test_labels_in_the_card_are_few_and_no_markup(changed: Changed) -> None:
    labels = ("<b>bold</b> & co", "[link](http://x) `code`", *(f"n{n}" for n in range(998)))
    card = card_of(changed(OWN, task="topics", labels=labels))
    assert r"Labels: &lt;b&gt;bold&lt;/b&gt; &amp; co, \[link\](http://x) \`code\`, n0," in card
    assert "n5 and 992 more." in card


def test_parts_of_the_splits_have_titles(changed: Changed, bundle: Bundle) -> None:
    """A task called like GLUE's, with fields of its own, is the user's."""
    assert part_titles(bundle.manifest) == (
        "held out of the training file by sentence",
        "GLUE's validation file",
    )
    renamed = own_bundle(changed, bundle, "glue").manifest.model_copy(update={"task": "sst2"})
    assert part_titles(renamed) == (
        "held out of the training file by text",
        "the validation file",
    )
    phrases = own_bundle(changed, bundle, "grouped", hold_out="phrases").manifest
    assert part_titles(phrases)[0] == "held out of the training file by sentence"


def test_bundle_without_heads_says_which_policy_it_runs(tmp_path: Path) -> None:
    small = load_bundle(bundle_without_heads(tmp_path / "bundle"))
    accuracy = {k: v for k, v in small.manifest.accuracy.items() if k != "default_policy"}
    made = Bundle(
        small.path, small.manifest.model_copy(update={"accuracy": accuracy}), small.bundle_id
    )
    card = card_of(made)
    assert "`dimee-fixed`: the bundle has no correctness heads for `cascade-routing`" in card
    assert "at least 100 validation examples" in card


@pytest.mark.parametrize(("given", "part"), [("validation-file", "glue"), ("glue", "glue")])
def test_validation_file_of_any_data_can_be_reported(given: str, part: str) -> None:
    assert parse(evaluate, f"dimee evaluate RUN --on {given}")["--on"] == part


def test_task_of_glue_keeps_its_name_alone(changed: Changed) -> None:
    """A bundle has all facts of its task; those of GLUE follow from the name."""
    facts = all_facts_of_task(TASKS["qnli"])
    made = changed(facts | {"split": "glue"}, task="qnli", labels=TASKS["qnli"].labels)
    assert "--text-field" not in card_of(made)
    assert part_titles(made.manifest) == (
        "held out of the training file by text",
        "GLUE's validation file",
    )
    own = changed(facts | {"split": "glue", "text_field": "mine"}, task="qnli")
    assert "--text-field mine" in card_of(own)
    assert part_titles(own.manifest)[1] == "the validation file"


def test_metric_of_the_task_is_beside_accuracy(changed: Changed, bundle: Bundle) -> None:
    accuracy = json.loads(json.dumps(bundle.manifest.accuracy))
    for number, row in enumerate(accuracy["policies"].values()):
        row["metric"] = 70.0 + number
    for part in ("reported", "validation"):
        for precision in ("fp32", "shipped"):
            accuracy[part][precision]["metric"] = [50.0 + i for i in range(6)]
    card = card_of(changed(OWN, task="topics", metric="macro-f1", accuracy=accuracy))
    assert "Metric: macro-F1." in card
    assert "| policy | accuracy (%) | macro-F1 (%) | mobile |" in card
    assert "| `cascade-routing` | 88.76 | 70.00 | 37.4% |" in card
    assert "| exit | accuracy fp32 (%) | exported (%) | macro-F1 fp32 (%) | exported (%) |" in card
    assert "| 6 | 88.88 | 89.11 | 55.00 | 55.00 | 0.917 |" in card
