"""``dimee calibrate`` for a bundle without correctness heads, and with few examples."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lab.certify.certify import SettingOutcomes, calibrate, certify, run_settings
from lab.cli.calibrate import calibrate as command
from lab.data.examples import Example
from lab.evaluate.samples import samples_of_bundle
from lab.evaluate.simulate import simulate
from mobile_client.local.runtime import LocalRuntime
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle, load_bundle
from shared.certificates.certificate import certified_policy, load_certificate
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.inference import devices
from shared.inference.devices import TORCH_CPU
from shared.policies import PolicyFacts
from shared.policies.centroids import DimeeFixed
from shared.pricing.price_book import PriceBook
from tests.support.bundles import bundle_without_heads
from tests.support.tiny_data import make_rows, write_rows

ROWS = make_rows(240, 31)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(bundle_without_heads(tmp_path_factory.mktemp("small") / "bundle"))


@pytest.fixture(scope="module")
def outcomes(small: Bundle) -> SettingOutcomes:
    examples = [Example(str(row["sentence"]), None, int(str(row["label"]))) for row in ROWS]
    return run_settings(small, samples_of_bundle(small, examples), small.cost_model)


@pytest.mark.parametrize("metric", ["accuracy", "consistency"])
def test_dimee_fixed_is_certified(metric: Any, small: Bundle, outcomes: SettingOutcomes) -> None:
    """The policy of the certificate answers as it was tested, at the certified α."""
    assert outcomes.policy == "dimee-fixed"
    done = calibrate(outcomes, metric, 0.9, 0.05)
    certificate = certify(small, done, PriceBook())
    assert certificate.policy == "dimee-fixed"
    assert certificate.thresholds.keys() == {"alpha"}
    policy = certified_policy(certificate, small)
    assert isinstance(policy, DimeeFixed)
    trace = simulate(policy, outcomes.samples, PolicyFacts.of(small), small.manifest.edge_layers)
    np.testing.assert_array_equal(trace.answer_N, outcomes.answer_SN[done.choice.setting])
    np.testing.assert_array_equal(trace.cost_N, outcomes.cost_SN[done.choice.setting])


def test_mobile_runs_the_certified_policy_until_an_alarm(
    small: Bundle, outcomes: SettingOutcomes, tmp_path: Path
) -> None:
    certificate = certify(small, calibrate(outcomes, "consistency", 0.9, 0.05), PriceBook())
    certificate.write(file := tmp_path / "certificate.json")
    runtime = LocalRuntime(MobileSettings(bundle=small.path, certificate=file))
    try:
        policy = runtime.make_policy("dimee-fixed")
        assert runtime.guard.covers(policy)
        assert runtime.guard.cost_model == small.cost_model
        prepared = runtime.prepare("a warm film", None)
        routing = policy.route(prepared.features)
        assert routing.alpha == certificate.thresholds["alpha"]
        assert runtime.alpha(routing) == routing.alpha
        mobile = routing.tier is Tier.MOBILE
        if mobile:
            routed = runtime.route(prepared, policy, 5_000.0)
            assert asyncio.run(runtime.answer(routed, lambda: None)).exit_layer >= 1
        runtime.guard.degraded = True
        assert policy.route(prepared.features).tier is Tier.CLOUD
    finally:
        runtime.close()


def run(small: Bundle, count: int, folder: Path, *arguments: str) -> Any:
    data = write_rows(folder / "own.jsonl", ROWS[:count])
    out = str(folder / "certificate.json")
    words = [str(small.path), "--data", str(data), "--out", out, *arguments]
    return CliRunner().invoke(command, words)


def test_command_certifies_a_bundle_without_heads(small: Bundle, tmp_path: Path) -> None:
    done = run(small, 240, tmp_path, "--max-drop", "90", "--metric", "consistency")
    assert done.exit_code == 0, done.output
    assert "policy dimee-fixed" in done.output
    assert load_certificate(tmp_path / "certificate.json", small).policy == "dimee-fixed"


def test_command_certifies_a_cloud_with_a_gpu(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = "--max-drop", "90", "--metric", "consistency", "--runtime", "cuda"
    monkeypatch.setattr(devices, "gpus", lambda: ([], "there is no GPU"))
    done = run(small, 240, tmp_path, *arguments)
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.message == "runtime: there is no GPU"
    monkeypatch.setattr(devices, "first_gpu", lambda field: TORCH_CPU)
    done = run(small, 240, tmp_path, *arguments)
    assert done.exit_code == 0, done.output
    file = tmp_path / "certificate.json"
    assert load_certificate(file, small, runtime=(Tier.CLOUD, "cuda")).runtime == "cuda"
    with pytest.raises(BundleError, match="which runs onnx here; set DIMEE_DEVICE=cuda"):
        load_certificate(file, small, runtime=(Tier.CLOUD, "onnx"))


@pytest.mark.parametrize("count", [2, 6, 20])
def test_few_examples_are_refused_with_the_number_needed(
    count: int, small: Bundle, tmp_path: Path
) -> None:
    """One sentence says how many examples, or what else, a certificate takes."""
    done = run(small, count, tmp_path, "--max-drop", "0.5", "--metric", "consistency")
    assert isinstance(done.exception, InvalidInput)
    message = done.exception.message
    assert message.startswith(f"max-drop: 0.5 cannot be certified with n = {count // 2}")
    assert (
        "needs about" in message
        or "allow more, or serve from the cloud" in message
        or "cheaper than the cloud alone" in message
    )
    assert "\n" not in message
    assert not (tmp_path / "certificate.json").exists()
