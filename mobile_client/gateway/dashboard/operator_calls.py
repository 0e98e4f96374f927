"""Calls of the page that concern all clients: the ledger's requests, what-if and links."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from pydantic import BeforeValidator
from starlette.responses import Response

from mobile_client.gateway.dashboard.classification import replay_context
from mobile_client.gateway.dashboard.ledger_reader import LedgerReader
from mobile_client.gateway.dashboard.links import ChangeLink, LinkControls
from mobile_client.gateway.dashboard.thread_calls import ThreadCalls
from mobile_client.gateway.dashboard.what_if import WhatIf, compare
from mobile_client.service import MobileService
from mobile_client.settings import link_control_urls
from shared.ages import parse_age
from shared.domain import Reason, Tier
from shared.errors import DimeeError, InvalidInput
from shared.field_types import Word
from shared.ledger.client import LedgerClient
from shared.ledger.request_list import RequestRecord

MAX_REQUESTS = 500
Optional = BeforeValidator(lambda value: None if value == "" else value)
"""Reads an empty query parameter, such as that of an empty field, as none."""


def _do_not_store(response: Response) -> None:
    response.headers["cache-control"] = "no-store"


NOT_STORED = [Depends(_do_not_store)]
"""Keeps answers out of the browser's cache, where they would outlive the session."""


class OperatorCalls:
    """The calls, and the threads in which they run."""

    def __init__(self, mobile: MobileService) -> None:
        self._mobile = mobile
        self._ledger = LedgerReader(mobile.settings)
        self._links = LinkControls(link_control_urls(mobile.settings.link_controls))
        self._link_calls = ThreadCalls("links")

    async def link_states(self) -> list[dict[str, Any]]:
        """Return the state of each link; none without links."""
        return await self._link_calls.run(self._links.states) if self._links else []

    def close(self) -> None:
        """End the threads and the connections."""
        self._ledger.close()
        self._link_calls.close()

    def install(self, app: FastAPI, api: str) -> None:
        """Add the calls to the gateway, below the path ``api``."""

        @app.get(f"{api}/requests", include_in_schema=False, dependencies=NOT_STORED)
        async def requests(
            since: Annotated[str | None, Optional] = None,
            policy: Annotated[Word | None, Optional] = None,
            tier: Annotated[Tier | None, Optional] = None,
            reason: Annotated[Reason | None, Optional] = None,
            limit: Annotated[int, Query(ge=1, le=MAX_REQUESTS)] = 100,
        ) -> dict[str, Any]:
            """Return ended requests, newest first, or the problem for which there are none."""
            begin = None if since is None else _begin(since)

            def read(ledger: LedgerClient) -> list[RequestRecord]:
                return ledger.list_requests(
                    since=begin, policy=policy, tier=tier, reason=reason, limit=limit
                )

            try:
                found = await self._ledger.read(read)
            except DimeeError as error:
                return {"requests": [], "problem": error.message}
            return {"requests": [one.model_dump(mode="json") for one in found], "problem": None}

        @app.get(f"{api}/requests/{{request_id}}", include_in_schema=False, dependencies=NOT_STORED)
        async def request_entries(request_id: str) -> dict[str, Any]:
            """Return both sides of every attempt of one request."""
            entries = await self._ledger.read(lambda ledger: ledger.request_entries(request_id))
            trace_ids = (entry.trace_id for entry in entries if entry.trace_id)
            return {
                "entries": [entry.model_dump(mode="json") for entry in entries],
                "trace_id": next(trace_ids, None),
            }

        @app.post(f"{api}/whatif", include_in_schema=False)
        async def compare_prices(scenario: WhatIf) -> dict[str, Any]:
            """Return what the last requests would have cost, or notes that say why not."""
            context = await replay_context(self._mobile)
            try:
                return await self._ledger.read(partial(compare, scenario=scenario, context=context))
            except DimeeError as error:
                if error.field is not None:  # of the scenario
                    raise
                return {"rows": [], "requests": 0, "notes": [error.message]}

        @app.put(f"{api}/links/{{hop}}", include_in_schema=False)
        async def change_link(hop: str, link: ChangeLink) -> dict[str, Any]:
            """Change a link of the testbed and return its state."""
            change = partial(self._links.change, hop, link.spec)
            return await self._link_calls.run(change)


def _begin(age: str) -> float:
    """Return the time, in seconds since 1970, that is ``age`` (such as 10m) ago."""
    age_s = parse_age(age)
    if age_s is None:
        raise InvalidInput("since: must be an age such as 30s, 10m or 2h", field="since")
    return max(0.0, time.time() - age_s)
