"""Paths of the repository and of the shipped bundle, and free ports."""

from __future__ import annotations

from pathlib import Path

from testbed.processes.ports import free_ports

__all__ = ["BUNDLE", "REPOSITORY", "free_ports"]

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "sst2-minilm"
