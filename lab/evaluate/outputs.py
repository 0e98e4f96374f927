"""Folders of exit outputs: the data of a trained run for studies, without weights or texts.

| file | content |
|---|---|
| ``facts.json`` | task, settings, sizes, hashes of data and weights, accuracy by exit |
| ``validation``, ``test``, ``glue`` ``.safetensors`` | the samples of each part |
| ``exit0.safetensors`` | the embedding classifier: ``weight`` (hidden, classes) and ``bias`` |
| ``train_logits.npy`` | optional: last exit's logits of the training part, for a teacher |

``glue`` is the validation file, where it is not the validation part. ``test`` is missing for a run
of the split ``glue``, whose test part is ``glue``; a run of the split ``files`` has only ``test``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lab.data.examples import Example, data_hash
from lab.data.splits import Split, has_validation_file, load_split, load_validation_file
from lab.data.tasks import Task, task_of_facts
from lab.evaluate.groups import with_groups
from lab.evaluate.samples import Samples, load_samples, save_samples
from lab.models.pair_features import DEFAULT_ENCODER, PairFeatures, packaged_pair_features
from lab.models.predict import ExitOutputs, accuracy_by_exit
from lab.models.run import Run, portable_facts
from shared.bundle.correctness_heads import Floats
from shared.errors import InvalidInput
from shared.files import refuse_special_files

FACTS = "facts.json"
CLASSIFIER_FILE = "exit0.safetensors"
LOGITS = "train_logits.npy"
OUTPUT_FILES = (
    FACTS,
    CLASSIFIER_FILE,
    LOGITS,
    *(f"{part}.safetensors" for part in ("validation", "test", "glue")),
)
REQUIRED_FACTS = (
    "task", "encoder", "split", "seed", "max_tokens", "layers", "data_hash", "train_hash",
    "weights_sha256", "examples",
)  # fmt: skip


class SavedOutputs:
    """A folder of exit outputs, checked against the texts.

    ``data`` is the folder or hub name of the texts. With it, every part must have been made from
    these texts, and missing features of pairs and missing groups of texts that share words are
    computed. Without it, nothing is checked or added. Raises `InvalidInput` if the folder does not
    hold outputs, or outputs of other texts.
    """

    kind = "outputs"

    def __init__(self, folder: Path, data: str | None = None) -> None:
        self.folder = folder
        self.added: set[str] = set()
        """Descriptions of parts that the folder lacked and that were computed from the texts."""
        refuse_special_files(folder, "outputs")
        self.facts = _read_facts(folder)
        self._data = data
        self._split = self._checked_split() if data is not None else None

    @cached_property
    def task(self) -> Task:
        """Task of the run."""
        return task_of_facts(self.facts)

    @property
    def layers(self) -> int:
        """Layers of the encoder, each with an exit."""
        return int(self.facts["layers"])

    @property
    def hidden_size(self) -> int:
        """Width of the encoder; folders of older versions lack it, and have equal embeddings."""
        written = self.facts.get("hidden_size")
        return int(written or self.validation().embedding_NH.shape[1])

    def validation(self) -> Samples:
        """Return the samples of the validation part."""
        if self._split is None:
            return self._samples("validation", None)
        examples = self._split.validation
        samples = self._samples("validation", examples)
        if samples.group_N is None:
            self.added.add("groups of texts that share words (from the texts)")
        return with_groups(samples, examples)

    def reported(self, on: str) -> Samples:
        """Return the samples of the part ``on``: ``test`` or ``glue``."""
        examples = None
        if self._split is not None and self._data is not None:
            examples = self._split.test
            if on == "glue":
                examples = load_validation_file(self._data, self.task, self.facts["split"])
        return self._samples(on, examples)

    def samples_of(self, examples: list[Example], name: str) -> Samples:
        """Raise `InvalidInput`: other texts need the model."""
        raise InvalidInput(
            f"outputs: {self.folder} holds no model to answer {name} with; give the run itself"
        )

    def embedding_classifier(self) -> tuple[Floats, Floats]:
        """Return weights and bias of the embedding classifier."""
        try:
            arrays = load_file(self.folder / CLASSIFIER_FILE)
            return arrays["weight"].astype(np.float64), arrays["bias"].astype(np.float64)
        except Exception as error:  # safetensors raises its own kind, OSError and KeyError
            raise InvalidInput(
                f"outputs: {self.folder / CLASSIFIER_FILE} cannot be read "
                f"({type(error).__name__}); write the folder again with dimee outputs"
            ) from None

    def _checked_split(self) -> Split:
        facts = self.facts
        assert self._data is not None
        split = load_split(self._data, self.task, facts["split"], facts["seed"], facts.get("limit"))
        hashes = data_hash(split.train + split.validation), data_hash(split.train)
        if hashes != (facts["data_hash"], facts["train_hash"]):
            raise self._other_data()
        return split

    def _other_data(self) -> InvalidInput:
        return InvalidInput(
            f"outputs: {self.folder} was made from data other than {self._data}; "
            "give the same data, or write the outputs again with dimee outputs"
        )

    def _samples(self, part: str, examples: list[Example] | None) -> Samples:
        file = self.folder / f"{part}.safetensors"
        if not file.is_file():
            other = "glue" if part == "test" else "test"
            raise InvalidInput(f"outputs: {self.folder} has no {file.name}; give --on {other}")
        try:
            samples = load_samples(file)
        except Exception as error:  # safetensors raises its own kind, OSError and KeyError
            raise InvalidInput(
                f"outputs: {file} cannot be read ({type(error).__name__}); "
                "write the folder again with dimee outputs"
            ) from None
        _check_shapes(samples, file, self.layers, len(self.task.labels))
        if samples.model_hash != self.facts["weights_sha256"]:
            raise InvalidInput(
                f"outputs: {file} belongs to another model than {FACTS} names; "
                "write the folder again with dimee outputs"
            )
        if examples is None:
            return samples
        if samples.data_hash != data_hash(examples):
            raise self._other_data()
        if self.task.pair_field is not None and samples.pair_NP is None:
            self.added.add(f"features of pairs (from the word table of {DEFAULT_ENCODER})")
            return replace(samples, pair_NP=self._pair_features().of(examples))
        return samples

    def _pair_features(self) -> PairFeatures:
        return packaged_pair_features(self.facts["max_tokens"])


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"outputs: {folder / FACTS} cannot be read ({type(error).__name__}); give a run, or a "
            "folder that dimee outputs wrote"
        ) from None
    missing = [name for name in REQUIRED_FACTS if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise InvalidInput(
            f"outputs: {folder / FACTS} lacks {missing[0]!r}; write it again with dimee outputs"
        )
    return facts


def _check_shapes(samples: Samples, file: Path, layers: int, classes: int) -> None:
    count = len(samples)
    expected = {
        "probabilities": (samples.probabilities_NEC.shape, (count, layers, classes)),
        "embedding": (samples.embedding_NH.shape[:1], (count,)),
        "tokens": (samples.tokens_N.shape, (count,)),
        "rare": (samples.rare_N.shape, (count,)),
    }
    for name, (actual, shape) in expected.items():
        if actual != shape:
            raise InvalidInput(
                f"outputs: {file} has {name} of shape {actual} instead of {shape}; "
                "write the folder again with dimee outputs"
            )
    labels_N = samples.labels_N
    sums_NE = samples.probabilities_NEC.sum(-1)
    if not count or labels_N.min() < 0 or labels_N.max() >= classes:
        raise InvalidInput(f"outputs: {file} has labels that are not this task's; write it again")
    if not np.isfinite(samples.embedding_NH).all() or not np.allclose(sums_NE, 1, atol=1e-3):
        raise InvalidInput(
            f"outputs: {file} holds values that are not probabilities; write it again"
        )


def write_outputs(source: Any, out: Path, data: str | None, train_logits: bool) -> dict[str, Any]:
    """Write the outputs of ``source`` (a `lab.evaluate.source.RunOutputs`) to ``out``.

    Returns the facts. Raises `InvalidInput` if ``out`` holds other files.
    """
    run = source.run
    if out.exists() and any(out.iterdir()) and not (out / FACTS).is_file():
        raise InvalidInput(f"out: {out} holds other files; choose a folder that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    for name in OUTPUT_FILES:  # remove the files of an earlier run
        (out / name).unlink(missing_ok=True)
    split = run.split(data)
    kind = run.facts["split"]
    parts = {"validation": source.validation()}
    if kind != "files" and has_validation_file(data or run.facts["data"], run.task):
        parts["glue"] = source.reported("glue")
    if kind != "glue":
        parts["test"] = source.reported("test")
    for name, samples in parts.items():
        half_precision = replace(samples, embedding_NH=samples.embedding_NH.astype(np.float16))
        save_samples(half_precision, out / f"{name}.safetensors")
    weight_HC, bias_C = source.embedding_classifier()
    save_file({"weight": np.ascontiguousarray(weight_HC), "bias": bias_C}, out / CLASSIFIER_FILE)
    if train_logits:
        logits_NC = last_logits(run, split.train)
        np.save(out / LOGITS, logits_NC.astype(np.float16), allow_pickle=False)
    facts = portable_facts(run.facts) | {
        "layers": run.model.layers,
        "hidden_size": run.model.encoder.config.hidden_size,
        "train_hash": data_hash(split.train),
        "weights_sha256": run.model_hash(),
        **{f"{name}_accuracy_by_exit": _accuracy(samples) for name, samples in parts.items()},
    }
    (out / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def last_logits(run: Run, examples: Sequence[Example]) -> NDArray[np.float32]:
    """Return ``logits_NC`` of the run's last exit as log-probabilities."""
    outputs = run.predict(examples)
    logits_NC: NDArray[np.float32] = np.log(np.clip(outputs.probabilities_ENC[-1], 1e-12, None))
    return logits_NC


def _accuracy(samples: Samples) -> list[float]:
    probabilities_ENC = samples.probabilities_NEC.transpose(1, 0, 2)
    return accuracy_by_exit(ExitOutputs(probabilities_ENC, samples.labels_N))
