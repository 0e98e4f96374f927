"""After the alarm every request goes to the cloud, and the alarm survives a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mobile_client.cli.render import row
from mobile_client.monitoring.certificate_monitor import monitor_state_file
from mobile_client.monitoring.monitor_state import audited_bound
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import Side, Tier
from shared.ledger.server.summary import summarise
from shared.wire import Classification
from tests.support.certificates import (
    TEXTS,
    Cloud,
    asked,
    audited_settings,
    certificate,
    certificate_id,
    contrary,
)
from tests.support.mobile import World, attempts_of


def test_alarm_sends_everything_to_the_cloud(bundle: Bundle, tmp_path: Path) -> None:
    cloud, texts = contrary(bundle, tmp_path, TEXTS)
    settings = audited_settings(bundle, tmp_path)
    world = World(tmp_path, up=("edge",), played={"cloud": cloud}, settings=settings)

    async def work(mobile: MobileService) -> tuple[list[Classification], list[Classification], Any]:
        before = await asked(mobile, texts)
        assert not mobile.monitor.health().degraded
        await mobile.monitor.auditor.drain()
        return before, await asked(mobile, texts[:3]), mobile.monitor.health()

    before, after, health = world.run(work)
    assert not any(answer.degraded for answer in before)
    assert all(answer.degraded and answer.tier is Tier.CLOUD for answer in after)
    assert {answer.certificate_id for answer in after} == {certificate_id(world)}
    assert {answer.policy for answer in after} == {"cascade-routing"}
    assert "cloud!" in row(texts[0], after[0])
    assert (health.status, health.degraded) == ("degraded", True)
    (alarm,) = [one for one in health.alarms if one.degrades]
    assert alarm.kind == "disagreement"
    assert alarm.since == health.degraded_since
    assert "the certificate allows at most 2.00%" in alarm.message
    assert health.audits.e_value >= health.audits.alarm_at == 100
    # a degraded mobile makes no audits, because all its answers come from the cloud
    assert health.audits.waiting == 0
    entries = [entry for entry in world.entries() if entry.request_id == after[0].request_id]
    assert {entry.degraded for entry in entries if entry.side is Side.CALLER} == {True}
    store = world.ledger()
    assert summarise(store).degraded == 3
    store.close()


def test_alarm_persists_until_it_is_reset(bundle: Bundle, tmp_path: Path) -> None:
    cloud, texts = contrary(bundle, tmp_path, TEXTS)
    settings = audited_settings(bundle, tmp_path)
    world = World(tmp_path, up=("edge",), played={"cloud": cloud}, settings=settings)

    async def raise_alarm(mobile: MobileService) -> Any:
        await asked(mobile, texts)
        await mobile.monitor.auditor.drain()
        return mobile.monitor.health().alarms

    async def restarted(mobile: MobileService) -> tuple[Any, Classification, Classification]:
        alarms = mobile.monitor.health().alarms
        (degraded,) = await asked(mobile, texts[:1])
        monitor_state_file(tmp_path, certificate_id(world)).unlink()
        (reset,) = await asked(mobile, texts[:1])
        assert mobile.monitor.health().audits.seen == 0
        return alarms, degraded, reset

    alarms = world.run(raise_alarm)
    restored_alarms, degraded, reset = world.run(restarted)
    assert restored_alarms == alarms
    assert degraded.degraded
    assert not reset.degraded
    assert reset.tier is not Tier.CLOUD


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 1}', "\xff", '{"a": NaN}'])
def test_damaged_state_file_is_renamed(
    content: str, bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, settings=audited_settings(bundle, tmp_path))
    file = monitor_state_file(tmp_path, certificate_id(world))
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode("latin-1"))

    async def work(mobile: MobileService) -> bool:
        return mobile.monitor.health().degraded

    assert world.run(work) is False
    assert "the counts start again" in caplog.text
    assert file.with_suffix(".damaged").exists()


def test_running_test_keeps_its_alpha(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = audited_settings(bundle, tmp_path)

    async def work(mobile: MobileService) -> float:
        await asked(mobile, TEXTS[:2])
        await mobile.monitor.auditor.drain()
        return mobile.monitor.health().audits.alarm_at or 0.0

    assert World(tmp_path, up=("edge", "cloud"), settings=settings).run(work) == 100
    later = settings | {"audit_alpha": 0.5}
    assert World(tmp_path, up=("edge", "cloud"), settings=later).run(work) == 100
    assert "keeps the alpha of 0.01" in caplog.text


def test_mobiles_of_one_machine_share_the_state(bundle: Bundle, tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge", "cloud"), settings=audited_settings(bundle, tmp_path))

    async def work(mobile: MobileService) -> list[int]:
        second = MobileService(mobile.settings)
        second.monitor.auditor._choose_cloud = mobile.monitor.auditor._choose_cloud
        second.replicas._clients = dict(
            zip(second.replicas._clients, mobile.replicas._clients.values(), strict=True)
        )
        for one, texts in ((mobile, TEXTS[:3]), (second, TEXTS[3:7]), (mobile, TEXTS[7:9])):
            await asked(one, texts)
            await one.monitor.auditor.drain()
            one.monitor.save()
        seen = [one.monitor.health().audits.seen for one in (mobile, second)]
        await second.close(flush_s=0)
        return seen

    assert world.run(work) == [9, 9]


def test_certificate_that_expires_degrades_the_running_mobile(
    bundle: Bundle, tmp_path: Path
) -> None:
    cloud = Cloud(bundle, bundle.manifest.labels[0])
    settings = audited_settings(bundle, tmp_path)
    world = World(tmp_path, up=("edge",), played={"cloud": cloud}, settings=settings)

    async def work(mobile: MobileService) -> tuple[Classification, Classification, Any]:
        (before,) = await asked(mobile, TEXTS[:1])
        mobile.monitor._now = lambda: datetime.now(UTC) + timedelta(days=4000)
        (after,) = await asked(mobile, TEXTS[:1])
        return before, after, mobile.monitor.health().alarms

    before, after, alarms = world.run(work)
    assert not before.degraded
    assert (after.degraded, after.tier) == (True, Tier.CLOUD)
    assert [alarm.kind for alarm in alarms] == ["expired"]


def test_price_change_does_not_change_certified_decisions(bundle: Bundle, tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text('{"version": "first"}')
    settings = audited_settings(bundle, tmp_path, price_book=book)
    world = World(tmp_path, up=("edge", "cloud"), settings=settings)

    async def work(mobile: MobileService) -> tuple[list[Classification], list[Classification], Any]:
        before = await asked(mobile, TEXTS)
        mobile.runtime.live_prices._clock = lambda: 1e12
        book.write_text('{"version": "second", "cost_model": {"cloud_fee": 0, "offload_cloud": 0}}')
        after = await asked(mobile, TEXTS)
        return before, after, mobile.monitor.health()

    before, after, health = world.run(work)
    assert [attempts_of(one) for one in before] == [attempts_of(one) for one in after]
    assert {one.cost.price_book for one in after} == {"second"}
    assert [alarm.kind for alarm in health.alarms] == ["prices"]
    assert not health.degraded


def test_certificate_of_accuracy_is_monitored_by_its_bound_on_disagreement(
    bundle: Bundle, tmp_path: Path
) -> None:
    """In production the right answers are unknown; without such a bound there is no alarm."""
    plain = certificate(bundle, metric="accuracy")
    assert audited_bound(plain) is None
    assert audited_bound(certificate(bundle, metric="accuracy", disagreement=0.04)) == 0.04
    assert audited_bound(certificate(bundle)) == 0.02
    assert audited_bound(None) is None
