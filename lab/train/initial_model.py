"""The task, the labels and the model that a training starts with."""

from __future__ import annotations

import sys
from dataclasses import asdict

import numpy as np
import torch
from tqdm import tqdm

from lab.data.tasks import TASKS, Task, task_of_facts
from lab.models.classifiers import load_classifier, read_classifier
from lab.models.encoded_examples import EncodedExamples
from lab.models.encoders import encoder_licence
from lab.models.exit_heads import ExitShape
from lab.models.model import MultiExitClassifier, new_model
from lab.models.predict import accuracy_by_exit, predict_encoded
from lab.train.settings import TrainSettings
from shared.errors import InvalidInput
from shared.labels import listed


def task_of(settings: TrainSettings) -> Task:
    """Return the task of the data; raises `InvalidInput` if a classifier has other labels."""
    task = task_of_facts(asdict(settings))
    if settings.from_classifier is None:
        return task
    labels = read_classifier(settings.from_classifier).labels
    if task.labels != labels:
        raise InvalidInput(
            f"labels: {settings.from_classifier} has {listed(labels)}, not "
            f"{listed(task.labels)}; give the classifier's labels in its order, or none"
        )
    if task.name in TASKS:
        numbered = TASKS[task.name].labels
        ours, theirs = ([label.casefold() for label in names] for names in (labels, numbered))
        if ours != theirs and sorted(ours) == sorted(theirs):
            raise InvalidInput(
                f"from_classifier: its labels are {listed(labels)}, but the numbers of "
                f"{task.name}'s labels mean {listed(numbered)}; give the data with the "
                "classifier's names, as your own task (--text-field)"
            )
    return task


def initial_model(settings: TrainSettings, classes: int) -> MultiExitClassifier:
    """Return the model with untrained exits, except for the last one of a classifier."""
    classifier = settings.from_classifier
    if classifier is None:
        model = new_model(settings.encoder, classes, settings.pooling, settings.head_hidden)
    else:
        model = load_classifier(classifier, ExitShape(settings.pooling, settings.head_hidden))
    if settings.freeze_backbone:
        model.freeze_backbone(last_exit=classifier is not None)
        if not any(weight.requires_grad for weight in model.parameters()):
            raise InvalidInput(
                "freeze_backbone: the classifier has one layer, so there is no exit to train; "
                "leave it out"
            )
    return model


def classifier_accuracy(
    model: MultiExitClassifier, validation: EncodedExamples, task: Task, device: torch.device
) -> float:
    """Return the accuracy in percent of a classifier, the last exit of the initial model.

    Warns if it is below that of always giving the most frequent label: the data's labels probably
    mean other classes.
    """
    labels_N = validation.labels_N
    accuracy = accuracy_by_exit(predict_encoded(model, validation, labels_N, device))[-1]
    counts_C = np.bincount(labels_N, minlength=len(task.labels))
    most = int(counts_C.argmax())
    if accuracy < 100 * counts_C[most] / len(labels_N):
        named = listed([f"{index} = {label}" for index, label in enumerate(task.labels)])
        tqdm.write(
            f"warning: the classifier is right on {accuracy:.2f} % of the validation part, and "
            f"always {task.labels[most]} would be on {100 * counts_C[most] / len(labels_N):.2f} %; "
            f"check that the labels of the data mean the classifier's ({named})",
            sys.stderr,
        )
    return accuracy


def licence_of(settings: TrainSettings) -> str:
    """Return the licence of the encoder, or a reference to the card that says it."""
    if settings.from_classifier is not None:
        return "see the classifier's card"
    return encoder_licence(settings.encoder)
