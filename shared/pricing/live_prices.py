"""Current prices: cost model and price book, read again when their file changes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.documents import parse_document
from shared.errors import InvalidInput
from shared.field_types import FreeText, Name, Price, WaitingPrice
from shared.files import ChangeDetector, read_limited
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

CHECK_INTERVAL_S = 1.0
LARGEST_BYTES = 65_536

_log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LambdaPrices(_Strict):
    """Prices in λ that replace the bundle's; None leaves the bundle's price."""

    mobile_layer: Price | None = None
    edge_layer: Price | None = None
    offload_edge: Price | None = None
    offload_cloud: Price | None = None
    cloud_fee: Price | None = None


class PriceFile(_Strict):
    """Content of a price-book file, in JSON; prices that are left out keep `PriceBook`'s defaults.

    ``note`` is a comment, for example the source of the prices. ``latency_price_lambda`` is the
    price of waiting one millisecond, in λ, for these prices; 0 if they include the time on the
    links.
    """

    version: Name
    note: FreeText | None = None
    valid_until: AwareDatetime | None = None
    latency_price_lambda: WaitingPrice | None = None
    edge_usd_per_hour: Price | None = None
    cloud_usd_per_hour: Price | None = None
    network_usd_per_gb: Price | None = None
    mobile_compute_mw: Price | None = None
    mobile_radio_nj_per_byte: Price | None = None
    cost_model: LambdaPrices = LambdaPrices()


class LivePrices:
    """Current cost model and price book, read from ``file`` again whenever it changes.

    ``latency_price_lambda``, the price of waiting, is None if the file has none. Without a file,
    the prices are ``cost_model`` and the default `PriceBook`. The constructor raises `InvalidInput`
    if the file cannot be read, is not a price book or has expired. A file that becomes invalid
    later is ignored with a warning, and the previous prices stay.
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
        self._checked_at = clock()
        self._changes = None if file is None else ChangeDetector(file)
        if file is not None:
            self._apply(read_price_file(file))

    def refresh(self) -> bool:
        """Check the file at most once a second; return whether the prices changed."""
        changes = self._changes
        if changes is None or self._clock() - self._checked_at < CHECK_INTERVAL_S:
            return False
        self._checked_at = self._clock()
        if not changes.changed():
            return False
        try:
            self._apply(read_price_file(changes.file))
        except InvalidInput as error:
            _log.warning("%s; the prices of %s stay in force", error.message, self.book.version)
            return False
        return True

    def _apply(self, file: PriceFile) -> None:
        not_money = {"cost_model", "valid_until", "note", "latency_price_lambda"}
        money = file.model_dump(exclude=not_money, exclude_none=True)
        self.latency_price_lambda = file.latency_price_lambda
        self.book = replace(PriceBook(), **money)
        self.cost_model = replace(self._base, **file.cost_model.model_dump(exclude_none=True))


def read_price_file(file: Path, now: datetime | None = None) -> PriceFile:
    """Read a price-book file; raises `InvalidInput` if it is not one or has expired."""
    try:
        raw = read_limited(file, LARGEST_BYTES)
    except OSError as error:
        raise InvalidInput(
            f"price-book: {file} cannot be read ({error.strerror}); give a file such as "
            f"{json.dumps(asdict(PriceBook()))}"
        ) from None
    try:
        prices = parse_document(raw, PriceFile)
    except ValueError as error:
        raise InvalidInput(f"price-book: {file}: {error}") from None
    if prices.valid_until is not None and (now or datetime.now(UTC)) >= prices.valid_until:
        raise InvalidInput(
            f"price-book: {prices.version} in {file} expired on "
            f"{prices.valid_until:%Y-%m-%d %H:%M}; write today's prices into it, "
            "with a new version and valid_until"
        )
    return prices
