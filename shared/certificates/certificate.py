"""The certificate: what a calibration promises, on which data, at which thresholds and prices.

The lab writes it, the tiers load it (`load_certificate`) and show it. It speaks of one bundle at
one m and n only; `certified_policy` makes the policy that it speaks of.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from shared.validation import first_error

FILE = "certificate.json"
"""Where ``dimee calibrate`` puts it in a bundle's folder; the manifest does not list it."""
FORMAT_VERSION = 1
LARGEST_BYTES = 65536

Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal["consistency", "accuracy"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prices(_Frozen):
    """The cost model, in λ, and the version of the price book that the thresholds were made at."""

    mobile_layer: float
    edge_layer: float
    offload_edge: float
    offload_cloud: float
    cloud_fee: float
    price_book: str

    @classmethod
    def of(cls, model: CostModel, book: PriceBook) -> Prices:
        """The prices of a cost model and a price book."""
        return cls(
            mobile_layer=model.mobile_layer,
            edge_layer=model.edge_layer,
            offload_edge=model.offload_edge,
            offload_cloud=model.offload_cloud,
            cloud_fee=model.cloud_fee,
            price_book=book.version,
        )

    def cost_model(self, layers: int) -> CostModel:
        """The cost model of these prices for an encoder of ``layers`` layers."""
        return CostModel(layers=layers, **self.model_dump(exclude={"price_book"}))


class TierBound(_Frozen):
    """The mean loss among the ``n`` judged samples that one tier answered is at most ``bound``."""

    n: Annotated[int, Field(ge=0)]
    bound: Share


class Promise(_Frozen):
    """With probability 1 − ``delta`` the mean loss against all-cloud is at most ``max_drop``.

    Losses are shares of requests (0.005 is half a point). ``bound`` is the upper bound of the
    chosen setting looked at by itself; what is promised is ``max_drop``. ``n`` counts the judged
    samples, ``data_hash`` names the examples that they are half of. The bounds ``per_tier`` hold
    all at once, with probability 1 − ``delta`` of their own; so does ``disagreement``, the bound of
    the share of answers that differ from all-cloud's, beside a promise of accuracy. ``shares`` by
    tier and the share ``escalated`` are those of the judged samples. After ``expires`` the price
    book is no longer to be trusted, and with it the thresholds.
    """

    format_version: Literal[1] = 1
    bundle_id: str
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    data_hash: str
    n: Annotated[int, Field(ge=1)]
    metric: Metric
    max_drop: Annotated[float, Field(gt=0, lt=1)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    bound: Annotated[float, Field(ge=-1, le=1)]
    policy: str
    mobile_layers: Annotated[int, Field(ge=1)]
    edge_layers: Annotated[int, Field(ge=2)]
    thresholds: Annotated[dict[str, float], Field(min_length=1)]
    prices: Prices
    per_tier: dict[Tier, TierBound] = {}
    disagreement: Share | None = None
    shares: dict[Tier, Share] = {}
    escalated: Share | None = None
    created: AwareDatetime
    expires: AwareDatetime | None = None

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.bound > self.max_drop:
            raise ValueError(f"bound {self.bound:g} is above max_drop {self.max_drop:g}")
        return self


class Certificate(Promise):
    """A promise under its name: ``certificate_id`` is the SHA-256 of the rest, 16 digits of it."""

    certificate_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]

    @model_validator(mode="after")
    def _unchanged(self) -> Self:
        if self.certificate_id != _content_id(self):
            raise ValueError("it does not name this content, which was changed")
        return self

    @classmethod
    def of(cls, promise: Promise) -> Certificate:
        """The certificate of a promise."""
        return cls(**promise.model_dump(), certificate_id=_content_id(promise))

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its price book is out of date."""
        return self.expires is not None and (now or datetime.now(UTC)) >= self.expires

    def sentence(self) -> str:
        """The promise in one sentence that a person can check."""
        what = f"at most {100 * self.max_drop:g} % of the answers differ from all-cloud's"
        if self.metric == "accuracy":
            points = f"{100 * self.max_drop:g} point{'' if self.max_drop == 0.01 else 's'}"
            what = f"accuracy is at most {points} under all-cloud's"
        return (
            f"With probability {100 * (1 - self.delta):g} % {what}: judged on {self.n:,} samples, "
            f"bound {100 * self.bound:.2f}, certificate {self.certificate_id}."
        )

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all; `InvalidInput` where one may not write."""
        part = file.with_suffix(".part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            part.replace(file)
        except OSError as error:
            raise InvalidInput(
                f"out: {file} cannot be written ({error.strerror}); give another file", field="out"
            ) from None


def _content_id(promise: Promise) -> str:
    content = promise.model_dump(mode="json", exclude={"certificate_id"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_certificate(
    path: Path | str,
    bundle: Bundle,
    now: datetime | None = None,
    mobile_layers: int | None = None,
    edge_layers: int | None = None,
) -> Certificate:
    """Read a certificate and check that it holds for ``bundle`` at ``now`` (the clock's time).

    Raises `BundleError` with one sentence that says what to do: unreadable, changed or not finite,
    made for other labels, another bundle, or other m and n (where they are given), or its price
    book is out of date.
    """
    certificate = read_certificate(Path(path))
    labels = bundle.manifest.labels
    if certificate.labels != labels:
        raise BundleError(
            f"certificate: {path} is for the labels {', '.join(certificate.labels)}, and "
            f"{bundle.path} has {', '.join(labels)}; calibrate this bundle: dimee calibrate"
        )
    if certificate.bundle_id != bundle.bundle_id:
        raise BundleError(
            f"certificate: {path} is for the bundle {certificate.bundle_id}, and {bundle.path} is "
            f"{bundle.bundle_id}; calibrate this bundle: dimee calibrate"
        )
    for name, option, mine, judged in (
        ("m", "--mobile-layers", mobile_layers, certificate.mobile_layers),
        ("n", "--edge-layers", edge_layers, certificate.edge_layers),
    ):
        if mine is not None and mine != judged:
            raise BundleError(
                f"certificate: {path} is for {name} = {judged}, and here {name} = {mine}; "
                f"set {option} {judged}, or calibrate again: dimee calibrate"
            )
    if certificate.expired(now):
        raise BundleError(
            f"certificate: {path} was made at the prices {certificate.prices.price_book}, which "
            f"expired {certificate.expires:%Y-%m-%d %H:%M %Z}; calibrate again at today's"
        )
    return certificate


def certified_policy(certificate: Certificate, bundle: Bundle) -> CascadeRouting:
    """The policy `cascade-routing` at the thresholds and the prices that were judged.

    The promise is that of this object, left as it is: other prices, a price of waiting, a deadline
    that a tier cannot meet, or a tier that is down make it decide otherwise (a request that fails
    over *to the cloud* is as good as the cloud). Raises `BundleError` for another policy's
    certificate or a bundle without correctness heads.
    """
    if certificate.policy != CascadeRouting.name or certificate.thresholds.keys() != {
        "alpha",
        "price",
    }:
        raise BundleError(
            f"certificate: {certificate.certificate_id} is for the policy {certificate.policy!r} "
            f"with {', '.join(certificate.thresholds)}; this version knows 'value' with alpha, "
            "price: calibrate again: dimee calibrate"
        )
    return CascadeRouting(
        bundle.correctness_heads(),
        certificate.prices.cost_model(bundle.manifest.layers),
        price=certificate.thresholds["price"],
        alpha=certificate.thresholds["alpha"],
    )


def read_certificate(file: Path) -> Certificate:
    """Read a certificate by itself; raises `BundleError` where it is not one."""
    try:
        with file.open("rb") as content:
            raw = content.read(LARGEST_BYTES + 1)
    except OSError:
        raise BundleError(
            f"certificate: {file} cannot be read; make one with: dimee calibrate"
        ) from None
    if len(raw) > LARGEST_BYTES:
        raise BundleError(f"certificate: {file} has more than {LARGEST_BYTES:,} bytes")
    try:
        return Certificate.model_validate_json(raw)
    except ValidationError as error:
        field, problem = first_error(error, whole="content")
        raise BundleError(
            f"certificate: {file} is not a certificate of format {FORMAT_VERSION} "
            f"({field}: {problem}); calibrate again: dimee calibrate"
        ) from None
