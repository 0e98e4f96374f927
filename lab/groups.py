"""Groups of examples that share text, so that no fold learns from the texts of another.

SST-2's training file holds phrases cut from sentences, QQP asks one question several times. Heads
that are fitted on one phrase of a sentence and judged on another look better than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lab.data import Example, groups_over_shared_texts, word_runs, words_of
from lab.samples import Samples


def groups_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return ``group_N``: a number for each example, equal where examples share text.

    Pairs hang together over equal texts. A single text belongs to the first longer text that holds
    it as a run of words, or that shares a long run with it (`lab.data.ROOT_WORDS`); a short phrase
    that stands in many texts belongs to one of them.
    """
    if examples and examples[0].pair is not None:
        return _numbered(groups_over_shared_texts(examples))
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].text))
    roots: list[str] = []
    root_of_run: dict[str, int] = {}
    group_N = np.zeros(len(examples), np.int64)
    for i in order:
        text, runs = f" {words_of(examples[i])} ", word_runs(examples[i])
        found = next((root_of_run[run] for run in runs if run in root_of_run), None)
        if found is None:
            found = next((r for r, root in enumerate(roots) if text in root), None)
        if found is None:
            found = len(roots)
            roots.append(text)
        for run in runs:
            root_of_run.setdefault(run, found)
        group_N[i] = found
    return group_N


def with_groups(samples: Samples, examples: Sequence[Example]) -> Samples:
    """Return the samples with the groups of their examples; those that have them stay."""
    if samples.group_N is not None:
        return samples
    return replace(samples, group_N=groups_of(examples))


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
