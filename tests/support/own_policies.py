"""Modules and installed packages with policies that are not built in."""

from __future__ import annotations

import itertools
from pathlib import Path

MODULE = """
from pathlib import Path

from shared.policies import RoutingDecision, StatelessPolicy, Tier

NUMBER = 3


class Plain(StatelessPolicy):
    name = "plain"

    def route(self, features):
        return RoutingDecision(Tier.MOBILE, self.name)


def make_plain():
    return Plain()


class Outer:
    Inner = Plain


class WithFactsAndSeed(Plain):
    def __init__(self, seed, facts, extra=1):
        self.alpha, self.exit = facts.alpha, 1 + seed % 2

    def route(self, features):
        return RoutingDecision(Tier.MOBILE, self.name, alpha=self.alpha, first_exit=self.exit)


class Bare:
    def route(self, features):
        return None


class Raises(Plain):
    def __init__(self):
        raise ValueError("no threshold was given")


class Exits(Plain):
    def __init__(self):
        raise SystemExit(3)


class NeedsMore(Plain):
    def __init__(self, threshold):
        self.threshold = threshold


class BuiltIn(Plain):
    name = "random"


class LongName(Plain):
    name = "n" * 65


class Spaced(Plain):
    name = "two words"


class Unnamed(StatelessPolicy):
    def route(self, features):
        return RoutingDecision(Tier.MOBILE, "")


class TooDeep(Plain):
    policy_layers = 99


class UnreadableName(Plain):
    @property
    def name(self):
        raise LookupError("no name")


class NotCallable(Plain):
    route = 3


class Touches(Plain):
    Path("touched").touch()


class RaisesInRoute(Plain):
    name = "raises-in-route"

    def route(self, features):
        if features.tokens > 6:
            raise LookupError("no such length")
        return super().route(features)


class RaisesInEscalate(Plain):
    name = "raises-in-escalate"

    def route(self, features):
        return RoutingDecision(Tier.EDGE, self.name)

    def escalate(self, features, decision, outcome, meets_threshold):
        raise LookupError("no such margin")


class RaisesInLearn(Plain):
    name = "raises-in-learn"
    learns = True

    def learn(self, decision, outcome):
        raise LookupError("no such arm")
"""
_number = itertools.count()


def write_module(folder: Path) -> str:
    """Write the module above, and broken ones, to a folder; return its name, new for each call."""
    name = f"own_policies_{next(_number)}"
    (folder / f"{name}.py").write_text(MODULE, encoding="utf-8")
    (folder / "broken_module.py").write_text("1 / 0\n", encoding="utf-8")
    (folder / "needy_module.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    return name


def install(folder: Path, package: str, policies: dict[str, str]) -> str:
    """Write the metadata of a package that registers policies; return the folder to search in."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in policies.items())
    (info / "entry_points.txt").write_text(f"[dimee.policies]\n{lines}")
    return str(folder)
