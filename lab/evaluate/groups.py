"""Groups of examples that share text, which must be in one fold.

SST-2's training file holds phrases cut from sentences, and QQP repeats questions. Heads fitted on
one phrase of a sentence and measured on another look better than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lab.data.examples import Example
from lab.data.splits import groups_over_shared_texts, word_runs, words_of
from lab.evaluate.samples import Samples


def groups_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return ``group_N``: a number for each example, equal for examples that share text.

    Pairs are joined by equal texts, single texts by `lab.data.splits.ROOT_WORDS` consecutive
    words. A shorter text within a longer one joins its group; a text within several, like "a good
    film", joins the first and does not merge them.
    """
    if examples and examples[0].pair is not None:
        return _numbered(groups_over_shared_texts(examples))
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].text))
    roots: list[str] = []
    parents: list[int] = []
    root_of_run: dict[str, int] = {}

    def find(root: int) -> int:
        while parents[root] != root:
            root = parents[root]
        return root

    root_N = np.zeros(len(examples), np.int64)
    for i in order:
        text, runs = f" {words_of(examples[i])} ", word_runs(examples[i])
        group_roots = sorted({find(root_of_run[run]) for run in runs if run in root_of_run})
        if not group_roots:
            group_roots = [r for r, root in enumerate(roots) if text in root][:1]
        if not group_roots:
            group_roots = [len(roots)]
            roots.append(text)
            parents.append(group_roots[0])
        for root_to_merge in group_roots[1:]:
            parents[root_to_merge] = group_roots[0]
        for run in runs:
            root_of_run.setdefault(run, group_roots[0])
        root_N[i] = group_roots[0]
    return np.array([find(int(root)) for root in root_N], np.int64)


def with_groups(samples: Samples, examples: Sequence[Example]) -> Samples:
    """Return the samples with the groups of their examples, unless they have groups already."""
    if samples.group_N is not None:
        return samples
    return replace(samples, group_N=groups_of(examples))


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
