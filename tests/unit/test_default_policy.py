"""The default policy is the bundle's: a bundle without correctness heads runs `dimee-fixed`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from mobile_client.client import MobileClient
from mobile_client.gateway.app import create_app
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.whatif import Scenario, what_if
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.loading import POLICY_WITH_HEADS, POLICY_WITHOUT_HEADS, Bundle, load_bundle
from shared.errors import InvalidInput
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeFixed
from shared.settings import read_settings
from tests.support.bundles import bundle_without_heads
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports

TEXT = "a gripping, funny film"


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without correctness heads."""
    return bundle_without_heads(tmp_path_factory.mktemp("small") / "bundle")


def test_names_are_those_of_the_policies() -> None:
    assert (CascadeRouting.name, DimeeFixed.name) == (POLICY_WITH_HEADS, POLICY_WITHOUT_HEADS)


def test_default_policy_follows_from_the_heads(bundle: Bundle, small_bundle: Path) -> None:
    assert bundle.default_policy == "cascade-routing"
    assert load_bundle(small_bundle).default_policy == "dimee-fixed"


@pytest.mark.parametrize("counts", [None, (0, 3, 1), (0, 0, 4)])
def test_requests_use_the_default_policy(
    counts: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    """An empty pool has no centroid, and its tier gets no text."""
    small = bundle_without_heads(tmp_path / "bundle", counts)
    world = World(tmp_path, up=("edge", "cloud"), settings={"bundle": small})

    async def classify(mobile: MobileService) -> list[object]:
        return list(await mobile.classify([TEXT, "dull"]))

    for outcome in world.run(classify):
        answer = answered(outcome)  # type: ignore[arg-type]
        assert answer.policy == "dimee-fixed"
        if counts is not None:
            assert answer.attempts[0].tier.value != "mobile"


def test_setting_overrides_the_bundle(small_bundle: Path, tmp_path: Path) -> None:
    with MobileClient(bundle=small_bundle, policy="mobile", state_dir=tmp_path) as mobile:
        assert mobile.classify(TEXT).policy == "mobile"


@pytest.mark.parametrize("value", ["", None])
def test_empty_variable_is_unset(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("DIMEE_POLICY", value)
    assert read_settings(MobileSettings).policy is None


def test_gateway_names_the_policy_in_use(small_bundle: Path, tmp_path: Path) -> None:
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    settings = MobileSettings(
        bundle=small_bundle, state_dir=tmp_path, edge_url=edge, cloud_url=cloud, ledger_url=ledger
    )

    async def ask() -> tuple[httpx.Response, ...]:
        app = create_app(settings)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://m") as http,
        ):
            body = {"texts": [TEXT], "policy": "cascade-routing"}
            return (
                await http.get("/readyz"),
                await http.get("/v1/status"),
                await http.post("/v1/classify", json=body),
            )

    ready, status, refused = asyncio.run(ask())
    assert ready.json()["policy"] == status.json()["policy"] == "dimee-fixed"
    assert refused.status_code == 422
    assert refused.json()["error"]["field"] == "policy"


def test_cascade_routing_is_refused_with_what_to_do(small_bundle: Path, tmp_path: Path) -> None:
    """The message names a policy that works and what heads need; a request's policy too."""
    with pytest.raises(InvalidInput, match=r"such as dimee-fixed, .* 100 validation examples"):
        MobileClient(bundle=small_bundle, policy="cascade-routing", state_dir=tmp_path)
    with (
        MobileClient(bundle=small_bundle, state_dir=tmp_path) as mobile,
        pytest.raises(InvalidInput, match="no correctness heads"),
    ):
        mobile.classify(TEXT, options=RequestOptions(policy="cascade-routing"))


def test_shipped_bundle_keeps_cascade_routing(tmp_path: Path) -> None:
    with MobileClient(bundle=BUNDLE, state_dir=tmp_path) as mobile:
        assert mobile.classify(TEXT).policy == "cascade-routing"


def test_whatif_says_why_it_cannot_replay(small_bundle: Path, tmp_path: Path) -> None:
    context = ReplayContext.load(MobileSettings(bundle=small_bundle, state_dir=tmp_path))
    assert context.policy is None
    with pytest.raises(InvalidInput, match=r"no correctness heads; .* dimee explain"):
        what_if([], context, Scenario(context.bundle.cost_model))
