"""A policy that is not built in runs in the mobile client; its errors lose no request."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from mobile_client import (
    InvalidInput,
    MobileClient,
    MobileSettings,
    PolicyFailed,
    RequestOptions,
)
from mobile_client.gateway.app import create_app
from mobile_client.insight.explain import explain
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import read_request
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import Side, State
from shared.errors import DimeeError
from shared.ledger.server.verify import verify
from shared.policies import Outcome, RoutingDecision, StatelessPolicy, TextFeatures, Tier
from shared.wire import Classification
from tests.support.certificates import written
from tests.support.mobile import World, answered, attempts_of
from tests.support.own_policies import install, write_module
from tests.support.paths import BUNDLE, free_ports

SHORT, LONG = "fine", "a gripping, funny and altogether wonderful film"


class ByLength(StatelessPolicy):
    """Send short texts to the mobile and long ones to the edge, and record what is learned."""

    name = "by-length"
    learns = True

    def __init__(self) -> None:
        self.learned: list[tuple[RoutingDecision, Outcome]] = []
        self.asked: list[Outcome] = []

    def route(self, features: TextFeatures) -> RoutingDecision:
        tier = Tier.MOBILE if features.tokens < 6 else Tier.EDGE
        return RoutingDecision(tier, self.name)

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        self.asked.append(outcome)
        return Tier.CLOUD if outcome.tier is Tier.EDGE else None

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        self.learned.append((decision, outcome))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return write_module(tmp_path)


def offline(folder: Path) -> MobileSettings:
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    return MobileSettings(
        bundle=BUNDLE, state_dir=folder, edge_url=edge, cloud_url=cloud, ledger_url=ledger
    )


def test_object_decides_and_learns_from_what_the_user_gets(tmp_path: Path) -> None:
    policy = ByLength()

    async def work(mobile: MobileService) -> list[Classification]:
        options = RequestOptions(policy=policy)
        return [answered(one) for one in await mobile.classify([SHORT, LONG], options=options)]

    world = World(tmp_path, up=("edge", "cloud"))
    short, long = world.run(work)
    assert attempts_of(short) == [("mobile", "route", "answered")]
    assert attempts_of(long) == [("edge", "route", "answered"), ("cloud", "escalate", "answered")]
    assert short.policy == long.policy == "by-length"
    assert {entry.policy for entry in world.entries() if entry.side is Side.CALLER} == {"by-length"}
    assert [outcome.tier for outcome in policy.asked] == [Tier.MOBILE, Tier.EDGE]
    for outcome in policy.asked:
        assert outcome.margin == pytest.approx(2 * outcome.confidence - 1), "of two classes"
    for answer, (decision, outcome) in zip((short, long), policy.learned, strict=True):
        assert decision.policy == "by-length"
        assert (outcome.tier, outcome.exit_layer) == (answer.tier, answer.exit_layer)
        assert outcome.cost_lambda == answer.cost.cost_lambda
        assert list(answer.probabilities)[outcome.label] == answer.label
        assert outcome.margin == pytest.approx(2 * answer.confidence - 1)


def test_client_takes_objects_and_paths(module: str, tmp_path: Path) -> None:
    policy = ByLength()
    with MobileClient(offline(tmp_path), policy=policy) as mobile:
        assert mobile.classify(SHORT).policy == "by-length"
        assert asyncio.run(mobile.aclassify(SHORT)).policy == "by-length"
        again = RequestOptions(policy=policy)
        assert mobile.classify(SHORT, options=again).policy == "by-length"
        path = RequestOptions(policy=f"{module}:Plain")
        answers = mobile.classify_many([SHORT, SHORT], options=path)
        answers += asyncio.run(mobile.aclassify_many([SHORT], options=path))
        assert [answered(one).policy for one in answers] == ["plain"] * 3
        by_name = RequestOptions(policy="plain")
        assert mobile.classify(SHORT, options=by_name).policy == "plain", "in use since then"
        with pytest.raises(
            InvalidInput, match="another policy with the name 'by-length' is in use"
        ):
            mobile.classify(SHORT, options=RequestOptions(policy=ByLength()))
        with pytest.raises(InvalidInput, match="has no class 'Missing'"):
            mobile.classify(SHORT, options=RequestOptions(policy=f"{module}:Missing"))
    assert len(policy.learned) == 3
    with MobileClient(offline(tmp_path), policy=f"{module}:Plain") as mobile:
        assert mobile.classify(SHORT).policy == "plain"
    with pytest.raises(InvalidInput, match="cannot be built"):
        MobileClient(offline(tmp_path), policy=f"{module}:Raises")


def test_request_without_a_decision_is_recorded(
    module: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other texts of the call are answered."""

    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        return await mobile.classify([SHORT, LONG, SHORT])

    world = World(tmp_path, settings={"policy": f"{module}:RaisesInRoute"})
    first, failed, last = world.run(work)
    assert answered(first).label == answered(last).label
    assert isinstance(failed, PolicyFailed)
    assert "'raises-in-route' failed in its method route" in failed.message
    assert isinstance(failed.__cause__, LookupError)
    assert "LookupError: no such length at " in caplog.text
    (entry,) = (entry for entry in world.entries() if entry.state is State.FAILED)
    assert (entry.policy, entry.error_code) == ("raises-in-route", "policy_failed")
    assert (entry.tier, entry.final, entry.cost_lambda) == (Tier.MOBILE, True, 0)
    store = world.ledger()
    report = verify(store)
    assert (report.consistent, report.requests) == (True, 3)
    store.close()


def test_error_in_escalate_ends_the_request_with_a_consistent_ledger(
    module: str, tmp_path: Path
) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        return await mobile.classify([SHORT])

    world = World(tmp_path, up=("edge",), settings={"policy": f"{module}:RaisesInEscalate"})
    (failed,) = world.run(work)
    assert isinstance(failed, PolicyFailed)
    assert "'raises-in-escalate' failed in its method escalate" in failed.message
    (caller,) = (entry for entry in world.entries() if entry.side is Side.CALLER)
    assert (caller.state, caller.error_code) == (State.FAILED, "policy_failed")
    assert caller.final
    store = world.ledger()
    assert verify(store).consistent
    store.close()


def test_error_in_learn_keeps_the_answers(
    module: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        return await mobile.classify([SHORT, SHORT])

    outcomes = World(tmp_path, settings={"policy": f"{module}:RaisesInLearn"}).run(work)
    assert {answered(one).policy for one in outcomes} == {"raises-in-learn"}
    assert caplog.text.count("method learn: LookupError: no such arm") == 1


def post(client: TestClient, policy: str | None) -> httpx.Response:
    return client.post("/v1/classify", json={"texts": [SHORT], "policy": policy})


def test_gateway_imports_nothing_that_a_request_names(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = offline(tmp_path / "state").model_copy(update={"policy": f"{module}:Plain"})
    other = write_module(tmp_path)
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").json()["policy"] == "plain"
        assert client.get("/v1/status").json()["policy"] == "plain"
        assert post(client, None).json()["items"][0]["result"]["policy"] == "plain"
        assert post(client, "plain").json()["items"][0]["result"]["policy"] == "plain"
        for name in (f"{other}:Plain", f"{module}:Plain", "os:getcwd", f"{other}.Plain", other):
            refused = post(client, name)
            assert refused.status_code == 422, name
            assert "is not known; choose one of" in refused.json()["error"]["message"]
        assert other not in sys.modules


def test_gateway_uses_installed_policies_and_hides_their_errors(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policies = {"plain": f"{module}:Plain", "broken": "broken_module:Plain"}
    policies["raises-in-escalate"] = f"{module}:RaisesInEscalate"
    policies["raises-in-route"] = f"{module}:RaisesInRoute"
    monkeypatch.syspath_prepend(install(tmp_path / "site", "own-one", policies))
    monkeypatch.syspath_prepend(str(tmp_path))
    with TestClient(create_app(offline(tmp_path / "state"))) as client:
        assert post(client, "plain").json()["items"][0]["result"]["policy"] == "plain"
        refused = post(client, "broken")
        assert refused.status_code == 500
        error = refused.json()["error"]
        assert error["code"] == "policy_failed"
        assert error["message"] == "policy: 'broken' cannot be used; the log says why"
        assert "ZeroDivisionError" in caplog.text
        body = {"texts": [LONG], "policy": "raises-in-route"}
        failed = client.post("/v1/classify", json=body)
        assert failed.status_code == 500
        error = failed.json()["error"]
        assert error.pop("request_id")
        assert error == {
            "code": "policy_failed",
            "message": "policy: 'raises-in-route' failed in its method route; the log says why",
            "field": "policy",
        }


def test_certificate_does_not_cover_an_own_policy(bundle: Bundle, tmp_path: Path) -> None:
    file = written(bundle, tmp_path)

    async def work(mobile: MobileService) -> tuple[bool, list[Classification]]:
        policy = await mobile.runtime.policy(ByLength())
        options = RequestOptions(policy="by-length")
        covered = mobile.runtime.guard.covers(policy)
        return covered, [answered(one) for one in await mobile.classify([SHORT], options=options)]

    covered, (answer,) = World(tmp_path, settings={"certificate": file}).run(work)
    assert not covered
    assert answer.certificate_id is None


def test_explain_says_that_the_ledger_has_no_reasons(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> ReplayContext:
        answered((await mobile.classify([SHORT], options=RequestOptions(policy=ByLength())))[0])
        return ReplayContext.load(mobile.settings)

    world = World(tmp_path)
    context = world.run(work)
    explanation = explain(read_request(world.entries()), context)
    assert explanation.policy == "by-length"
    assert explanation.why.startswith("mobile by by-length: the policy is not built in")
