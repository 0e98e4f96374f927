"""The SDK and the gateway answer without other tiers, and refuse wrong input."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from mobile_client import MobileClient, RequestOptions
from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from shared.domain import Delivery, Side, State, Tier
from shared.errors import BundleError, DimeeError, InvalidInput, TierUnreachable, TooLarge
from shared.ledger.entry import LedgerEntry
from shared.wire import MAX_TEXTS
from tests.support.paths import BUNDLE, free_ports


@pytest.fixture
def settings(tmp_path: Path) -> MobileSettings:
    """Return settings whose servers do not exist."""
    urls = [f"http://127.0.0.1:{port}" for port in free_ports(3)]
    return MobileSettings(
        bundle=BUNDLE, state_dir=tmp_path, ledger_url=urls[0], edge_url=urls[1], cloud_url=urls[2]
    )


def entries_of(client: MobileClient) -> list[LedgerEntry]:
    rows = client._mobile.outbox.pending(10_000)
    return [LedgerEntry.model_validate_json(row[3]) for row in rows]


def test_sync_async_single_and_batch_calls_agree(settings: MobileSettings) -> None:
    texts = ["a wonderful film", "dull, slow and pointless"]
    with MobileClient(settings, policy="mobile") as mobile:
        many = mobile.classify_many(texts)
        one = [mobile.classify(text) for text in texts]

        async def awaited() -> list[object]:
            return [await mobile.aclassify(texts[0]), *await mobile.aclassify_many(texts)]

        from_async = asyncio.run(awaited())
        mobile.close(flush_s=0)

    def facts(answer: object) -> tuple[object, ...]:
        assert not isinstance(answer, DimeeError)
        return (answer.label, answer.probabilities, answer.tier, answer.exit_layer)  # type: ignore[attr-defined]

    assert [facts(answer) for answer in many] == [facts(answer) for answer in one]
    assert [facts(answer) for answer in from_async] == [facts(answer) for answer in (one[0], *many)]
    assert [answer.label for answer in one] == ["positive", "negative"]


def test_local_answer_is_recorded_on_both_sides(settings: MobileSettings) -> None:
    with MobileClient(settings, policy="mobile") as mobile:
        answer = mobile.classify("a wonderful film")
        caller, tier = sorted(entries_of(mobile), key=lambda entry: entry.side)
        mobile.close(flush_s=0)
    assert (caller.side, tier.side) == (Side.CALLER, Side.TIER)
    assert caller.attempt_id == tier.attempt_id == answer.attempts[0].attempt_id
    assert caller.state is tier.state is State.ANSWERED
    assert caller.cost_lambda == answer.cost.cost_lambda > 0
    assert caller.final
    assert answer.cost.all_cloud_lambda == caller.all_cloud_lambda == 18
    assert "wonderful" not in caller.model_dump_json() + tier.model_dump_json()


def test_unreachable_tiers_are_named_and_recorded_as_not_sent(settings: MobileSettings) -> None:
    servers = {"fail_over": ("edge", "cloud"), "retries": 0}
    with MobileClient(settings, policy="cloud", **servers) as mobile:
        with pytest.raises(TierUnreachable, match=r"the cloud at .*; the edge at ") as caught:
            mobile.classify("fine")
        entries = entries_of(mobile)
        mobile.close(flush_s=0)
    assert settings.cloud_url in caught.value.message
    attempts = sorted((entry.ordinal, entry.tier.value, entry.state.value) for entry in entries)
    assert attempts == [(1, "cloud", "failed"), (2, "edge", "failed")]
    assert {entry.delivery for entry in entries} == {Delivery.NOT_SENT}
    assert {entry.cost_lambda for entry in entries} == {0.0}
    assert sorted(entry.final for entry in entries) == [False, True]


def test_mobile_answers_offline_and_marks_the_answer(settings: MobileSettings) -> None:
    with MobileClient(settings, policy="cloud", retries=0) as mobile:
        answer = mobile.classify("a wonderful film")
        mobile.close(flush_s=0)
    assert answer.failed_over
    assert (answer.degraded, answer.degraded_because) == (True, "offline")
    assert [attempt.tier.value for attempt in answer.attempts] == ["cloud", "edge", "mobile"]


def test_wrong_input_opens_no_request(settings: MobileSettings) -> None:
    with MobileClient(settings, policy="mobile") as mobile:
        for text, kind in (
            ("", InvalidInput),
            ("x" * 1_000_000, TooLarge),
            ("\ud800", InvalidInput),
            ("a\x00", InvalidInput),
            ("\u200b", InvalidInput),
        ):
            with pytest.raises(kind, match=r"^texts\.0: "):
                mobile.classify(text)
        with pytest.raises(TooLarge, match="at most 1,000"):
            mobile.classify_many(["a"] * 10_000)
        with pytest.raises(InvalidInput, match=r"texts\.1: is empty"):
            mobile.classify_many(["a", " "])
        with pytest.raises(InvalidInput, match="the task sst2 uses none"):
            mobile.classify("a", pair="b")
        with pytest.raises(InvalidInput, match="choose one of"):
            mobile.classify("a", options=RequestOptions("best"))
        assert entries_of(mobile) == []
        mobile.close(flush_s=0)


def test_truncation_is_reported(settings: MobileSettings) -> None:
    with MobileClient(settings, policy="mobile") as mobile:
        long, short = mobile.classify("good " * 2_000), mobile.classify("good")
        limit = mobile._mobile.runtime.bundle.manifest.max_tokens
        mobile.close(flush_s=0)
    assert (long.truncated, long.tokens) == (True, limit)
    assert not short.truncated


def test_closed_client_raises_a_clear_error(settings: MobileSettings) -> None:
    mobile = MobileClient(settings, policy="mobile")
    mobile.close(flush_s=0)
    with pytest.raises(RuntimeError, match="closed"):
        mobile.classify("a")


def test_missing_bundle_is_refused(settings: MobileSettings, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="dimee export"):
        MobileClient(settings, bundle=tmp_path / "none")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"texts": [""]}, 422, "texts.0"),
        ({"texts": ["ok", "   "]}, 422, "texts.1"),
        ({"texts": []}, 422, "texts"),
        ({"texts": "a"}, 422, "texts"),
        ({"texts": [1]}, 422, "texts.0"),
        ({}, 422, "texts"),
        ({"texts": ["a"], "colour": "red"}, 422, "colour"),
        ({"texts": ["a"], "pairs": ["b"]}, 422, "pairs"),
        ({"texts": ["a"], "policy": "best"}, 422, "policy"),
        ({"texts": ["a"], "deadline_ms": -1}, 422, "deadline_ms"),
        ({"texts": ["x" * 1_000_000]}, 413, "texts.0"),
        ({"texts": ["a"] * (MAX_TEXTS + 1)}, 413, "texts"),
        ({"texts": ["a"] * 10_000}, 413, "body"),
        ({"texts": ["x" * 1_000] * 10_000}, 413, "body"),
        (["a"], 422, "body"),
    ],
)
def test_gateway_refuses_wrong_bodies(
    body: object, status: int, field: str, settings: MobileSettings
) -> None:
    answer = _post(settings, httpx.Request("POST", "http://mobile/v1/classify", json=body))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["field"] == field
    assert field.split(".")[0] in error["message"]
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"texts": ["\\ud800"]}', 422),
        (b'{"texts": ["a\\u0000b"]}', 422),
        (b"not json", 422),
        (b"\xff\xfe", 422),
        (b"", 422),
    ],
)
def test_gateway_refuses_invalid_bytes(
    content: bytes, status: int, settings: MobileSettings
) -> None:
    headers = {"content-type": "application/json"}
    request = httpx.Request("POST", "http://mobile/v1/classify", content=content, headers=headers)
    answer = _post(settings, request)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_gateway_returns_errors_beside_results(settings: MobileSettings) -> None:
    def body(policy: str, *texts: str) -> httpx.Request:
        content = {"texts": texts, "policy": policy}
        return httpx.Request("POST", "http://mobile/v1/classify", json=content)

    answer = _post(settings, body("mobile", "a wonderful film", "an ugly, lifeless mess"))
    labels = [item["result"]["label"] for item in answer.json()["items"]]
    assert labels == ["positive", "negative"]
    settings = settings.model_copy(update={"fail_over": (Tier.CLOUD,), "retries": 0})
    single = _post(settings, body("edge", "a"))
    assert (single.status_code, single.json()["error"]["code"]) == (503, "tier_unreachable")
    several = _post(settings, body("edge", "a", "b"))
    assert several.status_code == 200
    assert [item["result"] for item in several.json()["items"]] == [None, None]
    assert several.json()["items"][1]["error"]["code"] == "tier_unreachable"


def _post(settings: MobileSettings, request: httpx.Request) -> httpx.Response:
    async def send() -> httpx.Response:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport) as http:
                return await http.send(request)

    return asyncio.run(send())
