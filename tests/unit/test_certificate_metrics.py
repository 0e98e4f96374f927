"""The gateway's metrics of the certificate: in force, expiry, alarms and degraded requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from fastapi import FastAPI

from mobile_client.gateway.metrics import install_metrics
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from tests.support.certificates import TEXTS, asked, audited_settings, contrary, written
from tests.support.mobile import World
from tests.support.scrapes import Scrape

EXPIRES = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


async def scraped(app: FastAPI) -> Scrape:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mobile") as http:
        return Scrape.of((await http.get("/metrics")).text)


def test_metrics_show_the_certificate_and_its_alarm(bundle: Bundle, tmp_path: Path) -> None:
    cloud, texts = contrary(bundle, tmp_path, TEXTS)
    settings = audited_settings(bundle, tmp_path)
    settings["certificate"] = written(bundle, tmp_path, expires=EXPIRES)
    world = World(tmp_path, up=("edge",), played={"cloud": cloud}, settings=settings)

    async def work(mobile: MobileService) -> tuple[Scrape, Scrape]:
        app = FastAPI()
        install_metrics(app, mobile, AIMDLimiter(8), lambda: True)
        await asked(mobile, texts)
        before = await scraped(app)
        await mobile.monitor.auditor.drain()
        await asked(mobile, texts[:3])
        return before, await scraped(app)

    before, after = world.run(work)
    assert before.total("dimee_certificate_in_force") == 1
    assert before.total("dimee_certificate_expiry_timestamp_seconds") == EXPIRES.timestamp()
    assert before.total("dimee_degraded") == before.total("dimee_alarm_active") == 0
    assert before.total("dimee_audits_waiting") > 0
    assert after.total("dimee_certificate_in_force") == 0
    assert after.total("dimee_degraded") == 1
    assert after.total("dimee_alarm_active", kind="disagreement") == 1
    assert after.total("dimee_audits_total", result="different") > 0
    assert after.total("dimee_degraded_requests_total") == 3
