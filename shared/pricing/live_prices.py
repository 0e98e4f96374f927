"""The prices of now: cost model and price book, from a file that may change while in use."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidInput
from shared.files import ChangeDetector
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from shared.validation import first_error

LOOK_EVERY_S = 1.0
LARGEST_BYTES = 65_536

Price = Annotated[float, Field(ge=0, le=1e9)]

_log = logging.getLogger(__name__)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LambdaPrices(_File):
    """Prices in λ that differ from the bundle's; what is left out stays the bundle's."""

    mobile_layer: Price | None = None
    edge_layer: Price | None = None
    offload_edge: Price | None = None
    offload_cloud: Price | None = None
    cloud_fee: Price | None = None


class PriceFile(_File):
    """Fields of a price book's file, in JSON; money that is left out keeps `PriceBook`'s.

    ``note`` says where the prices are from; nothing is computed from it. ``latency_price_lambda``
    is the price of waiting one millisecond, in λ, that fits these prices: 0 where they hold the
    links' time.
    """

    version: Annotated[str, Field(min_length=1, max_length=64)]
    note: Annotated[str, Field(max_length=2000)] | None = None
    valid_until: AwareDatetime | None = None
    latency_price_lambda: Annotated[float, Field(ge=0, le=1e6)] | None = None
    edge_usd_per_hour: Price | None = None
    cloud_usd_per_hour: Price | None = None
    network_usd_per_gb: Price | None = None
    mobile_compute_mw: Price | None = None
    mobile_radio_nj_per_byte: Price | None = None
    cost_model: LambdaPrices = LambdaPrices()


class LivePrices:
    """``cost_model``, ``book`` and ``latency_price_lambda``, the price of waiting, as of now.

    The last is None where the file has none. With a ``file`` they are read from it, and again when
    it changes (`refresh`). Raises `InvalidInput` at start where the file cannot be read, is no
    price book or is out of date; one that becomes so later is not taken, and the prices stay what
    they were.
    """

    def __init__(
        self,
        cost_model: CostModel,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cost_model = cost_model
        self.book = PriceBook()
        self.latency_price_lambda: float | None = None
        self._base, self._clock = cost_model, clock
        self._looked = clock()
        self._changes = None if file is None else ChangeDetector(file)
        if file is not None:
            self._take(read_price_file(file))

    def refresh(self) -> bool:
        """Look at the file at most once a second; returns whether prices changed."""
        changes = self._changes
        if changes is None or self._clock() - self._looked < LOOK_EVERY_S:
            return False
        self._looked = self._clock()
        if not changes.changed():
            return False
        try:
            self._take(read_price_file(changes.file))
        except InvalidInput as error:
            _log.warning("%s; the prices of %s are kept", error.message, self.book.version)
            return False
        return True

    def _take(self, file: PriceFile) -> None:
        others = {"cost_model", "valid_until", "note", "latency_price_lambda"}
        money = file.model_dump(exclude=others, exclude_none=True)
        self.latency_price_lambda = file.latency_price_lambda
        self.book = replace(PriceBook(), **money)
        self.cost_model = replace(self._base, **file.cost_model.model_dump(exclude_none=True))


def read_price_file(file: Path, now: datetime | None = None) -> PriceFile:
    """Read a price book; raises `InvalidInput` where it is none or its last day is over."""
    try:
        with file.open("rb") as content:
            raw = content.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"price-book: {file} cannot be read ({error.strerror}); give a file like "
            f"{json.dumps(asdict(PriceBook()))}"
        ) from None
    if len(raw) > LARGEST_BYTES:
        raise InvalidInput(f"price-book: {file} has more than {LARGEST_BYTES:,} bytes")
    try:
        prices = PriceFile.model_validate_json(raw)
    except ValidationError as error:
        field, problem = first_error(error, whole="content")
        raise InvalidInput(f"price-book: {file}: {field}: {problem}") from None
    if prices.valid_until is not None and (now or datetime.now(UTC)) >= prices.valid_until:
        raise InvalidInput(
            f"price-book: {prices.version} in {file} expired {prices.valid_until:%Y-%m-%d %H:%M}; "
            "put today's prices in it, with a new version and valid_until"
        )
    return prices
