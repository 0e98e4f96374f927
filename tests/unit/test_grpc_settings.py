"""Settings of the gateway's gRPC server that end in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobile_client.gateway.protocols.grpc_lifespan import check_grpc
from mobile_client.settings import MobileSettings
from shared.errors import MissingExtra
from tests.support.paths import BUNDLE, free_ports


def mobile_settings(folder: Path, **given: Any) -> MobileSettings:
    return MobileSettings(bundle=BUNDLE, state_dir=folder, **given)


def test_without_a_port_nothing_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.extras.find_spec", lambda _: None)
    check_grpc(mobile_settings(tmp_path))


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"DIMEE_GRPC_PORT needs grpc, .*\.\[service,grpc\]"):
        check_grpc(mobile_settings(tmp_path, grpc_port=free_ports(1)[0]))
