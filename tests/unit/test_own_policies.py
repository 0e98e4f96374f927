"""Policies that are not built in: how they are found, built and checked, and their errors."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.domain import margin_of
from shared.errors import DimeeError, InvalidInput, PolicyFailed, from_payload
from shared.policies import (
    POLICY_NAMES,
    Outcome,
    PolicyFacts,
    RoutingDecision,
    StatelessPolicy,
    TextFeatures,
    Tier,
    check_policy,
    make_known_policy,
    make_policy,
)
from tests.support.own_policies import install, write_module

ANY = TextFeatures(np.zeros(2, np.float32), tokens=5)


@pytest.fixture(scope="module")
def facts(bundle: Bundle) -> PolicyFacts:
    return PolicyFacts.of(bundle)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of policies in the working directory, which is not in Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    return write_module(tmp_path)


def test_class_and_function_are_built_by_path(module: str, facts: PolicyFacts) -> None:
    for name in ("Plain", "make_plain", "Outer.Inner"):
        policy = make_policy(f"{module}:{name}", facts)
        assert policy.name == policy.route(ANY).policy == "plain"
        assert (
            policy.escalate(ANY, policy.route(ANY), Outcome(Tier.MOBILE, 1, 0.5, 1), True) is None
        )


def test_constructor_gets_facts_and_seed_by_name(module: str, facts: PolicyFacts) -> None:
    policy = make_policy(f"{module}:WithFactsAndSeed", facts, seed=7)
    assert policy.route(ANY).alpha == facts.alpha
    assert policy.route(ANY).first_exit == 2, "seed 7 is odd"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("best", "'best' is not known; choose one of cascade-routing"),
        (":Plain", "is not MODULE:CLASS"),
        ("{module}:", "is not MODULE:CLASS"),
        ("../{module}:Plain", "is not MODULE:CLASS"),
        ("nowhere:Plain", "there is no module 'nowhere' in "),
        ("{module}.py:Plain", "write '{module}:Plain', without .py"),
        ("{module}.deeper:Plain", "there is no module"),
        ("{module}:Missing", "has no class 'Missing'"),
        ("{module}:NUMBER", "is neither a class nor a function"),
        (
            "{module}:Bare",
            "lacks name, policy_layers, learns, uses_conditions, escalate, learn, use",
        ),
        ("{module}:Raises", "cannot be built (ValueError: no threshold was given at "),
        ("{module}:Exits", "cannot be built (SystemExit: 3 at "),
        ("{module}:NeedsMore", "cannot be built (TypeError: "),
        (
            "{module}:BuiltIn",
            "the name 'random' of '{module}:BuiltIn' is that of a built-in policy",
        ),
        ("{module}:LongName", "is not valid; use at most 64 letters"),
        ("{module}:Spaced", "is not valid; use at most 64 letters"),
        ("{module}:Unnamed", "StatelessPolicy and give it a name"),
        ("{module}:TooDeep", "has an invalid policy_layers (99)"),
        ("{module}:UnreadableName", "cannot be used (LookupError: no name at "),
        ("{module}:NotCallable", "has an invalid route (3)"),
        ("broken_module:Plain", "'broken_module' cannot be imported (ZeroDivisionError: "),
        ("needy_module:Plain", "needs not_installed_anywhere, which is not installed"),
    ],
)
def test_errors_are_one_sentence(path: str, says: str, module: str, facts: PolicyFacts) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_policy(path.format(module=module), facts)
    assert caught.value.message.startswith("policy: ")
    assert says.format(module=module) in caught.value.message
    assert "\n" not in caught.value.message
    assert "Traceback" not in caught.value.message


def test_name_of_a_request_is_never_imported(module: str, facts: PolicyFacts) -> None:
    for name in (f"{module}:Plain", "os:system", f"{module}:Touches"):
        with pytest.raises(InvalidInput, match="is not known"):
            make_known_policy(name, facts)
    assert module not in sys.modules
    assert not Path("touched").exists()


def test_installed_policy_is_used_by_its_name(
    module: str, facts: PolicyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "site", "own-one", {"plain": f"{module}:Plain"}))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_known_policy("plain", facts).name == "plain"
    with pytest.raises(InvalidInput, match=r"choose one of .*i-splitee, plain$"):
        make_policy("best", facts)


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("other", "{module}:Plain", "registers 'other', but the policy's own name is 'plain'"),
        ("plain", "nowhere:Plain", "'plain' of own-one cannot be imported (ModuleNotFoundError: "),
        ("plain", "{module}:NUMBER", "is neither a class nor a function"),
        ("plain", "{module}:Raises", "cannot be built (ValueError: no threshold"),
    ],
)
def test_errors_of_installed_policies(
    name: str,
    target: str,
    says: str,
    module: str,
    facts: PolicyFacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = install(tmp_path / "site", "own-one", {name: target.format(module=module)})
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput) as caught:
        make_known_policy(name, facts)
    assert says in caught.value.message


def test_name_that_two_packages_register_is_refused(
    module: str, facts: PolicyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, target in (("own-one", "Plain"), ("own-two", "make_plain")):
        folder = install(tmp_path / package, package, {"plain": f"{module}:{target}"})
        monkeypatch.syspath_prepend(folder)
    with pytest.raises(InvalidInput, match="is registered by own-one and own-two"):
        make_known_policy("plain", facts)


def test_built_in_name_means_the_built_in_policy(
    module: str, facts: PolicyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "s", "own-one", {"cloud": f"{module}:Plain"}))
    assert make_policy("cloud", facts).route(ANY).tier is Tier.CLOUD


class Given(StatelessPolicy):
    """Policy that returns, or raises, what it is given."""

    name = "given"

    def __init__(self, decision: Any = None, target: Any = None, layers: int | None = None) -> None:
        self._decision, self._target, self.policy_layers = decision, target, layers

    def route(self, features: TextFeatures) -> RoutingDecision:
        return _returned(self._decision)

    def escalate(self, *_: Any) -> Tier | None:
        return _returned(self._target)

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        raise KeyError("not seen")


def _returned(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError("no words")

    __str__ = __repr__


class UnprintableError(Unprintable, Exception):
    pass


def decided(**fields: Any) -> RoutingDecision:
    return RoutingDecision(**{"tier": Tier.MOBILE, "policy": "given"} | fields)


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (None, "returned None; return a RoutingDecision"),
        (Tier.CLOUD, "return a RoutingDecision"),
        (decided(tier="cloud"), "tier='cloud', which is not a Tier"),
        (decided(tier=None), "tier=None, which is not a Tier; give Tier.MOBILE, Tier.EDGE or"),
        (decided(escalate_to="cloud"), "escalate_to='cloud', which is not a Tier"),
        (decided(last_layer=3), "last_layer=3, but the mobile has 2 layers"),
        (decided(last_layer=0), "last_layer=0, but the mobile has 2 layers"),
        (decided(last_layer=1.5), "last_layer=1.5"),
        (decided(first_exit=0), "first_exit=0, which is not in 1 to 2"),
        (decided(first_exit=2, last_layer=1), "first_exit=2, which is not in 1 to 1"),
        (decided(alpha=0), "alpha=0, which is not above 0"),
        (decided(alpha=math.nan), "alpha=nan, which is not above 0"),
        (decided(alpha="high"), "alpha='high', which is not above 0"),
        (decided(difficulty="easy"), "difficulty='easy', which is not a Difficulty"),
        (ZeroDivisionError("no words"), "ZeroDivisionError: no words at "),
        (SystemExit(3), "SystemExit: 3 at "),
        (Unprintable(), "returned <Unprintable>; return a RoutingDecision"),
        (UnprintableError(), "UnprintableError: <UnprintableError> at "),
    ],
)
def test_invalid_decision_fails_and_is_logged_once(
    decision: Any, says: str, facts: PolicyFacts, caplog: pytest.LogCaptureFixture
) -> None:
    policy = check_policy(Given(decision), facts)
    for _ in range(2):
        with pytest.raises(PolicyFailed) as caught:
            policy.route(ANY)
        message = caught.value.message
        assert message == "policy: 'given' failed in its method route; the log says why"
    (logged,) = caplog.messages
    assert logged.startswith("policy 'given', method route: ")
    assert says in logged
    assert "\n" not in logged


@pytest.mark.parametrize(
    ("tier", "target", "expected"),
    [
        (Tier.MOBILE, None, None),
        (Tier.MOBILE, Tier.EDGE, Tier.EDGE),
        (Tier.MOBILE, Tier.CLOUD, Tier.CLOUD),
        (Tier.EDGE, Tier.EDGE, None),  # the tier that answered: the answer is kept
        (Tier.CLOUD, ValueError("never asked"), None),
        (Tier.MOBILE, "cloud", "returned 'cloud'; return a Tier or None"),
        (Tier.EDGE, Tier.MOBILE, "returned mobile for an answer of the edge"),
        (Tier.MOBILE, ValueError("no margin"), "ValueError: no margin at "),
        (Tier.MOBILE, SystemExit(0), "SystemExit: 0 at "),
    ],
)
def test_escalation_is_checked(
    tier: Tier,
    target: Any,
    expected: Tier | str | None,
    facts: PolicyFacts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = check_policy(Given(decided(), target), facts)
    outcome = Outcome(tier, 1, 0.9, 1.0)
    if expected is None or isinstance(expected, Tier):
        assert policy.escalate(ANY, decided(), outcome, True) is expected
        return
    with pytest.raises(PolicyFailed, match="failed in its method escalate"):
        policy.escalate(ANY, decided(), outcome, True)
    assert expected in caplog.text


def test_error_in_learn_is_logged_once(
    facts: PolicyFacts, caplog: pytest.LogCaptureFixture
) -> None:
    policy = check_policy(Given(decided()), facts)
    for _ in range(3):
        policy.learn(decided(), Outcome(Tier.MOBILE, 1, 0.9, 1.0))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "method learn: KeyError: 'not seen' at " in caplog.text


def test_decision_carries_the_name_and_plain_numbers(facts: PolicyFacts) -> None:
    """A decision that a built-in policy made is still the user's; numpy numbers become plain."""
    decision = decided(
        policy="mobile", alpha=np.float32(0.5), last_layer=np.int64(2), distances=(1.0, 2.0, 3.0)
    )
    checked = check_policy(Given(decision), facts).route(ANY)
    assert checked == decided(policy="given", alpha=0.5, last_layer=2)
    assert (type(checked.alpha), type(checked.last_layer)) == (float, int)


def test_policy_may_use_the_layers_that_it_asks_for(facts: PolicyFacts) -> None:
    decision = decided(last_layer=6)
    assert check_policy(Given(decision, layers=6), facts).route(ANY).last_layer == 6


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_object_with_a_built_in_name_is_refused(name: str, facts: PolicyFacts) -> None:
    """Otherwise a certificate of cascade-routing would cover it, and the ledger mix the two."""
    policy = Given(decided())
    policy.name = name
    with pytest.raises(InvalidInput, match="is that of a built-in policy"):
        check_policy(policy, facts)


def test_object_that_is_no_policy_is_refused(facts: PolicyFacts) -> None:
    with pytest.raises(InvalidInput, match=r"^policy: int lacks name, .*; derive it from"):
        check_policy(3, facts)
    with pytest.raises(InvalidInput, match=r"^policy: Given is a class; give an object of it, suc"):
        check_policy(Given, facts)


def test_margin_is_the_difference_of_the_two_largest() -> None:
    assert margin_of([0.2, 0.5, 0.3]) == pytest.approx(0.2)
    assert margin_of([0.5, 0.5]) == 0
    assert math.isnan(Outcome(Tier.EDGE, 1, 0.5, 0.0).margin)


def test_error_is_the_same_class_over_http() -> None:
    error = PolicyFailed("policy: 'x' failed")
    assert error.status == 500
    assert type(from_payload(error.payload(), error.status)) is PolicyFailed
    assert issubclass(PolicyFailed, DimeeError)


def test_import_for_authors_is_light() -> None:
    code = (
        "from shared.policies import StatelessPolicy, TextFeatures, RoutingDecision, Tier\n"
        "import sys; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "fastapi", "onnxruntime", "tokenizers", "httpx"}
