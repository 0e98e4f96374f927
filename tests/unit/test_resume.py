"""Tiers resume from hidden states, and the mobile sends one if that saves time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from mobile_client.local.resume import HiddenState, Resumption
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Side, Tier
from shared.errors import BundleMismatch, InvalidInput, NotFound, Overloaded
from shared.inference.classifier import Classifier
from shared.inference.codec import CODECS, Codec, encode
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.server.verify import verify
from shared.pricing.cost_model import CostModel
from shared.settings import read_settings
from shared.wire import MAX_BODY_BYTES, Classification, InferResponse, ResumeRequest
from testbed.texts import sample_sentences
from tests.support.answers import valid_answer
from tests.support.mobile import World, answered, attempts_of
from tests.support.paths import BUNDLE

ROUTED = ("mobile", "route", "answered")
COSTS = CostModel.paper(6)
POLICY = "i-splitee"  # its first arm uses exit 1 only, and escalates to the cloud


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers))


@pytest.fixture(scope="module")
def uncertain(whole: Classifier, bundle: Bundle) -> str:
    """Return a sentence whose confidence at the first two exits is below α."""
    for text in sample_sentences():
        rows = [whole.encoder.encode(text)]
        found = [whole.classify(rows, None, layer)[0].confidence for layer in (1, 2)]
        if max(found) < bundle.manifest.alpha:
            return text
    raise AssertionError("the samples hold no hard sentence")


def hidden(whole: Classifier, text: str, layer: int) -> Any:
    keep: dict[int, Any] = {}
    whole.classify([whole.encoder.encode(text)], None, layer, keep=keep)
    return keep[0]


def tier(folder: Path, name: str) -> FastAPI:
    return World(folder)._app(name)


def post(app: FastAPI, body: bytes, path: str = "/v1/resume", **headers: str) -> httpx.Response:
    given = {"dimee-request-id": "r1", "dimee-attempt-id": "a1"} | headers

    async def send_request() -> httpx.Response:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://tier") as http:
                if path != "/v1/resume":
                    return await http.get(path)
                return await http.post(path, content=body, headers=given)

    return asyncio.run(send_request())


def entry_of(folder: Path, name: str) -> LedgerEntry:
    outbox = Outbox.claim(folder / name, name)
    (row,) = outbox.pending(100)
    outbox.close()
    return LedgerEntry.model_validate_json(row[3])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("after", [1, 2, 5])
def test_cloud_resumes_after_a_layer(
    after: int, codec: Codec, whole: Classifier, uncertain: str, tmp_path: Path
) -> None:
    state = encode(hidden(whole, uncertain, after), after, whole.bundle.bundle_id, codec)
    headers = {"dimee-ordinal": "2", "dimee-text-hash": "h", "dimee-text-chars": "44"}
    response = post(tier(tmp_path, "cloud"), state, **headers)
    assert response.status_code == 200, response.text
    answer = InferResponse.model_validate_json(response.content)
    row = whole.encoder.encode(uncertain)
    (expected,) = whole.classify([row], None)
    assert list(answer.probabilities.values()) == pytest.approx(expected.probabilities, abs=0.06)
    assert (answer.tier, answer.exit_layer, answer.resumed_after) == (Tier.CLOUD, 6, after)
    assert (answer.tokens, answer.truncated) == (row.tokens, False)
    entry = entry_of(tmp_path, "cloud")
    assert (entry.state, entry.resumed_after, entry.exit_layer) == ("answered", after, 6)
    assert (entry.ordinal, entry.text_hash, entry.text_chars) == (2, "h", 44)
    assert entry.tokens == row.tokens


def test_edge_resumes_and_exits_early_or_at_layer_n(
    whole: Classifier, uncertain: str, bundle: Bundle, tmp_path: Path
) -> None:
    state = encode(hidden(whole, uncertain, 1), 1, bundle.bundle_id, "fp16")
    exits = {
        alpha: post(tier(tmp_path / alpha, "edge"), state, **{"dimee-alpha": alpha}).json()[
            "exit_layer"
        ]
        for alpha in ("0.5", "1.0")
    }
    assert exits == {"0.5": 2, "1.0": 3}
    answer = post(tier(tmp_path, "edge"), state).json()
    assert answer["confidence"] >= bundle.manifest.alpha or answer["exit_layer"] == 3


@pytest.mark.parametrize(
    ("layer", "bundle_id", "status", "says"),
    [
        (3, None, 422, "this tier's last layer is 3"),
        (200, None, 422, "this tier's last layer is 3"),
        (1, "f" * 16, 409, "send the text instead"),
    ],
)
def test_refused_state_is_recorded(
    layer: int, bundle_id: str | None, status: int, says: str,
    whole: Classifier, uncertain: str, tmp_path: Path,
) -> None:  # fmt: skip
    bundle_id = bundle_id or whole.bundle.bundle_id
    state = encode(hidden(whole, uncertain, 3), layer, bundle_id, "int8")
    response = post(tier(tmp_path, "edge"), state)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]
    entry = entry_of(tmp_path, "edge")
    code = "bundle_mismatch" if status == 409 else "invalid_input"
    assert (entry.state, entry.error_code, entry.resumed_after) == ("refused", code, None)


@pytest.mark.parametrize("body", [b"", b"{}", bytes(100), b"\xff" * 1000])
def test_body_that_is_no_state_is_refused_with_422(body: bytes, tmp_path: Path) -> None:
    response = post(tier(tmp_path, "cloud"), body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "state"


def test_body_that_is_too_large_is_refused_with_413(tmp_path: Path) -> None:
    assert post(tier(tmp_path, "cloud"), bytes(MAX_BODY_BYTES + 1)).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"dimee-request-id": "with blank"},
        {"dimee-attempt-id": ""},
        {"dimee-ordinal": "0"},
        {"dimee-deadline-ms": "inf"},
        {"dimee-deadline-ms": "0"},
        {"dimee-alpha": "2"},
        {"dimee-text-chars": "many"},
        {"dimee-text-hash": "h" * 65},
    ],
)
def test_wrong_header_is_named_in_the_error(headers: dict[str, str], tmp_path: Path) -> None:
    response = post(tier(tmp_path, "cloud"), b"", **headers)
    assert response.status_code in (413, 422)
    assert next(iter(headers)) in response.json()["error"]["field"]


def test_passed_deadline_is_refused(whole: Classifier, uncertain: str, tmp_path: Path) -> None:
    state = encode(hidden(whole, uncertain, 1), 1, whole.bundle.bundle_id)
    response = post(tier(tmp_path, "cloud"), state, **{"dimee-deadline-ms": "1e-9"})
    assert response.status_code == 504
    assert entry_of(tmp_path, "cloud").state == "timed_out"


def test_openapi_describes_the_body_and_every_header(
    tmp_path: Path,
) -> None:
    operation = post(tier(tmp_path, "edge"), b"", "/openapi.json").json()["paths"]["/v1/resume"]
    described = operation["post"]
    assert "safetensors" in described["requestBody"]["description"]
    full = ResumeRequest(request_id="r", attempt_id="a", alpha=0.5, text_hash="h", text_chars=1)
    assert {one["name"] for one in described["parameters"]} == set(full.headers())


@pytest.mark.parametrize("value", [65_504.0, -65_504.0, 0.0])
def test_extreme_values_give_finite_answers(value: float, bundle: Bundle, tmp_path: Path) -> None:
    hidden_TH = np.full((5, bundle.manifest.hidden_size), value, np.float32)
    hidden_TH[2] *= -1
    response = post(tier(tmp_path, "cloud"), encode(hidden_TH, 1, bundle.bundle_id))
    assert response.status_code == 200
    assert 0 <= response.json()["confidence"] <= 1


def ask(world: World, texts: list[str], policy: str = POLICY) -> list[Classification]:
    async def work(mobile: MobileService) -> list[Classification]:
        return [
            answered(one) for one in await mobile.classify(texts, options=RequestOptions(policy))
        ]

    return world.run(work)


def checked(world: World) -> list[LedgerEntry]:
    store = world.ledger()
    report = verify(store)
    rows = list(store.entries())
    store.close()
    assert report.consistent, report
    return rows


def test_mobile_sends_its_hidden_state_on_escalation(
    uncertain: str, whole: Classifier, tmp_path: Path
) -> None:
    world = World(tmp_path, up=("cloud",), settings={"resume": "always"})
    (answer,) = ask(world, [uncertain])
    assert attempts_of(answer) == [ROUTED, ("cloud", "escalate", "answered")]
    assert [one.resumed_after for one in answer.attempts] == [None, 1]
    assert (answer.exit_layer, answer.truncated) == (6, False)
    (expected,) = whole.classify([whole.encoder.encode(uncertain)], None)
    assert list(answer.probabilities.values()) == pytest.approx(expected.probabilities, abs=0.06)
    # the cloud is paid by the request, resumed or not
    assert [one.cost_lambda for one in answer.attempts] == [COSTS.mobile_layer, COSTS.all_cloud]
    rows = checked(world)
    there = [row for row in rows if row.tier is Tier.CLOUD]
    assert {row.side: row.resumed_after for row in there} == {Side.CALLER: 1, Side.TIER: 1}
    assert len({(row.text_hash, row.text_chars, row.tokens) for row in there}) == 1


def test_edge_is_paid_for_the_layers_that_it_ran(uncertain: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge",), settings={"resume": "always", "resume_codec": "fp16"})
    (answer,) = ask(world, [uncertain])
    # the cloud is unreachable, and the edge resumes from the mobile's state
    expected = [ROUTED, ("cloud", "escalate", "failed"), ("edge", "fail_over", "answered")]
    assert attempts_of(answer) == expected
    assert [one.resumed_after for one in answer.attempts] == [None, 1, 1]
    assert answer.attempts[-1].cost_lambda == COSTS.offload_edge + COSTS.edge_layer * (
        answer.exit_layer - 1
    )
    checked(world)


def test_truncated_text_is_reported_after_resuming(tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",), settings={"resume": "always"})
    (answer,) = ask(world, ["it almost works, and that is what hurts " * 100])
    if answer.escalated:
        assert answer.attempts[-1].resumed_after == 1
    assert answer.truncated


@pytest.mark.parametrize(
    "error",
    [BundleMismatch("state: no"), InvalidInput("state: no"), NotFound("path: no")],
    ids=lambda error: error.code,
)
def test_refused_state_is_followed_by_the_text(
    error: InvalidInput, uncertain: str, tmp_path: Path
) -> None:
    asked: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/v1/resume":
            assert request.headers["content-type"] == "application/octet-stream"
            return httpx.Response(error.status, json=error.payload())
        return httpx.Response(200, json=answer_of(request))

    settings = {"resume": "always"}
    world = World(tmp_path, up=("edge",), played={"cloud": refuse}, settings=settings)
    (answer,) = ask(world, [uncertain])
    refused, retried = ("cloud", "escalate", "refused"), ("cloud", "retry", "answered")
    assert attempts_of(answer) == [ROUTED, refused, retried]
    assert [one.resumed_after for one in answer.attempts] == [None, 1, None]
    assert asked == ["/v1/resume", "/v1/infer"]
    # a refused attempt was sent, and costs oc
    assert answer.cost.cost_lambda == COSTS.mobile_layer + COSTS.offload_cloud + COSTS.all_cloud
    assert (answer.escalated, answer.failed_over) == (True, False)


def answer_of(request: httpx.Request) -> dict[str, Any]:
    return valid_answer(json.loads(request.content)["attempt_id"], "cloud", compute_ms=6.0)


def test_no_further_tier_gets_the_state_after_a_refusal(uncertain: str, tmp_path: Path) -> None:
    mismatch = BundleMismatch("no").payload()
    settings = {"resume": "always"}
    world = World(
        tmp_path,
        up=("edge",),
        played={"cloud": lambda _: httpx.Response(409, json=mismatch)},
        settings=settings,
    )
    (answer,) = ask(world, [uncertain])
    assert attempts_of(answer) == [
        ROUTED,
        ("cloud", "escalate", "refused"),
        ("cloud", "retry", "refused"),
        ("edge", "fail_over", "answered"),
    ]
    assert [one.resumed_after for one in answer.attempts] == [None, 1, None, None]


def test_busy_tier_is_not_sent_the_text(uncertain: str, tmp_path: Path) -> None:
    busy = Overloaded("full").payload()
    world = World(
        tmp_path,
        played={"cloud": lambda _: httpx.Response(429, json=busy)},
        settings={"resume": "always", "fail_over": ()},
    )
    (answer,) = ask(world, [uncertain])
    refused, reused = ("cloud", "escalate", "refused"), ("mobile", "fail_over", "answered")
    assert attempts_of(answer) == [ROUTED, refused, reused]
    assert [one.resumed_after for one in answer.attempts] == [None, 1, None]


@pytest.mark.parametrize(
    ("settings", "resumed"),
    [
        ({"resume": "never"}, [None, None]),
        ({"resume": "never", "uplink_mbps": 1e6}, [None, None]),
        ({}, [None, None]),  # the uplink is unknown
        ({"uplink_mbps": 1e6}, [None, 1]),  # the first answer shows the time of a layer
        ({"uplink_mbps": 0.001}, [None, None]),
        ({"resume": "always", "uplink_mbps": 0.001}, [1, 1]),
    ],
)
def test_settings_decide_whether_the_state_is_sent(
    settings: dict[str, Any], resumed: list[int | None], uncertain: str, tmp_path: Path
) -> None:
    world = World(tmp_path, up=("cloud",), settings=settings)

    async def work(mobile: MobileService) -> list[Classification]:
        answers = []
        for _ in resumed:
            # restart the learning policy at its first arm
            mobile.runtime._policies.clear()
            answers.append(
                answered((await mobile.classify([uncertain], options=RequestOptions(POLICY)))[0])
            )
        return answers

    answers = world.run(work)
    assert [one.attempts[-1].resumed_after for one in answers] == resumed
    checked(world)


def test_measured_times_decide_whether_the_state_is_sent() -> None:
    state = HiddenState(np.zeros((20, 384), np.float32), 2)
    tiers = {Tier.EDGE: 3, Tier.CLOUD: 6}
    settings = MobileSettings(uplink_mbps=100)
    choice = Resumption(settings, "b", tiers)
    assert choice.needs_hidden_states
    assert choice.choose(state, Tier.CLOUD) is None
    choice.learn(Tier.CLOUD, measured(exit_layer=6, compute_ms=60.0))
    assert choice.layer_ms(Tier.CLOUD, tokens=20) == 10
    assert choice.choose(state, Tier.CLOUD) is not None
    assert choice.choose(state, Tier.EDGE) is None
    for _ in range(40):
        choice.learn(Tier.CLOUD, measured(exit_layer=6, resumed_after=2, compute_ms=0.4))
    assert choice.layer_ms(Tier.CLOUD, tokens=20) == pytest.approx(0.1, abs=0.01)
    assert choice.choose(state, Tier.CLOUD) is None
    assert choice.choose(state, Tier.MOBILE) is None
    always = Resumption(settings.model_copy(update={"resume": "always"}), "b", tiers)
    assert always.choose(state, Tier.EDGE) is not None
    assert always.choose(HiddenState(state.hidden_TH, 3), Tier.EDGE) is None
    assert always.choose(HiddenState(state.hidden_TH * np.nan, 2), Tier.EDGE) is None


def measured(exit_layer: int, compute_ms: float, resumed_after: int | None = None) -> InferResponse:
    return InferResponse(
        attempt_id="a", tier=Tier.CLOUD, label="positive", probabilities={}, confidence=1.0,
        exit_layer=exit_layer, resumed_after=resumed_after, tokens=20, truncated=False,
        bundle_id="b", queue_ms=0.0, compute_ms=compute_ms, tier_ms=compute_ms,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given", [{"resume": "often"}, {"resume_codec": "fp32"}, {"uplink_mbps": 0}]
)
def test_wrong_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"DIMEE_{next(iter(given)).upper()}"):
        read_settings(MobileSettings, bundle=BUNDLE, **given)
