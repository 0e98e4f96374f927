"""Certificate of a calibration: an upper bound on the loss, and the settings it is valid for.

``dimee calibrate`` writes a certificate, and the tiers load it with `load_certificate`. It covers
one bundle at one m and n. `certified_policy` returns the policy that it covers.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.bundle.loading import Bundle
from shared.documents import parse_document
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.field_types import Count, FreeText, Labels, Layer, Name, Price, Share, ShortSha256
from shared.files import read_limited
from shared.inference.devices import Runtime
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeFixed
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

FILE = "certificate.json"
"""Name of the certificate in a bundle's folder; the manifest does not list it."""
FORMAT_VERSION = 1
LARGEST_BYTES = 65536
_THRESHOLDS = {CascadeRouting.name: {"alpha", "cost_weight"}, DimeeFixed.name: {"alpha"}}
"""Policies that can be certified, and the thresholds of their certificates."""

Metric = Literal["consistency", "accuracy"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prices(_Frozen):
    """Cost model in λ and version of the price book that the thresholds were chosen at."""

    mobile_layer: Price
    edge_layer: Price
    offload_edge: Price
    offload_cloud: Price
    cloud_fee: Price
    price_book: Name

    @classmethod
    def of(cls, model: CostModel, book: PriceBook) -> Prices:
        """Return the prices of a cost model and a price book."""
        return cls(
            mobile_layer=model.mobile_layer,
            edge_layer=model.edge_layer,
            offload_edge=model.offload_edge,
            offload_cloud=model.offload_cloud,
            cloud_fee=model.cloud_fee,
            price_book=book.version,
        )

    def cost_model(self, layers: int) -> CostModel:
        """Return the cost model of these prices for an encoder of ``layers`` layers."""
        return CostModel(layers=layers, **self.model_dump(exclude={"price_book"}))


class TierBound(_Frozen):
    """Upper bound on the mean loss of one tier's answers, from ``n`` samples that it answered."""

    n: Count
    bound: Share


class CertificateContent(_Frozen):
    """Content of a certificate: with probability 1 − ``delta``, mean loss ≤ ``max_drop``.

    The loss compares with all-cloud and is a share of requests (0.005 is half a percentage point).

    - ``metric``: ``consistency`` counts answers that differ from the cloud's, ``accuracy`` counts
      right answers that are lost.
    - ``bound``: the upper bound of the chosen setting alone; the certified bound is ``max_drop``.
    - ``n``: number of test samples. ``data_hash``: hash of the examples, half of which are tested.
    - ``per_tier``: bounds for the tiers, which hold together with probability 1 − ``delta``.
    - ``disagreement``: in a certificate of accuracy also an upper bound on the share of answers
      that differ from the cloud's, with probability 1 − ``delta``.
    - ``shares``, ``escalated``: shares of the test samples by tier, and of escalated ones.
    - ``expires``: end of validity of the price book, and thus of the thresholds.
    - ``runtime``: what ran the cloud's layers, see `shared.inference.devices`; mobile and edge ran
      them with ``onnx``, and so did the cloud in certificates of earlier versions.
    """

    format_version: Literal[1] = 1
    bundle_id: Name
    labels: Labels
    data_hash: FreeText
    n: Annotated[int, Field(ge=1)]
    metric: Metric
    max_drop: Annotated[float, Field(gt=0, lt=1)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    bound: Annotated[float, Field(ge=-1, le=1)]
    policy: Name
    mobile_layers: Layer
    edge_layers: Annotated[Layer, Field(ge=2)]
    thresholds: Annotated[dict[Name, Price], Field(min_length=1)]
    prices: Prices
    per_tier: dict[Tier, TierBound] = {}
    disagreement: Share | None = None
    shares: dict[Tier, Share] = {}
    escalated: Share | None = None
    created: AwareDatetime
    expires: AwareDatetime | None = None
    runtime: Runtime = "onnx"

    @model_validator(mode="after")
    def _check_bound(self) -> Self:
        if self.bound > self.max_drop:
            raise ValueError(f"bound {self.bound:g} is above max_drop {self.max_drop:g}")
        if not 0 < self.thresholds.get("alpha", 1.0) <= 1:
            raise ValueError("the threshold alpha must be above 0 and at most 1")
        return self


class Certificate(CertificateContent):
    """A certificate; ``certificate_id`` is the first 16 digits of its content's SHA-256."""

    certificate_id: ShortSha256

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        if self.certificate_id != _content_id(self):
            raise ValueError("does not match the content; the file was changed")
        return self

    @classmethod
    def of(cls, content: CertificateContent) -> Certificate:
        """Return the certificate with this content."""
        return cls(**content.model_dump(), certificate_id=_content_id(content))

    def expired(self, now: datetime | None = None) -> bool:
        """Return whether the certificate's prices have expired at ``now`` (default: the clock)."""
        return self.expires is not None and (now or datetime.now(UTC)) >= self.expires

    def sentence(self) -> str:
        """Return the certified statement as one sentence."""
        claim = f"at most {100 * self.max_drop:g} % of the answers differ from all-cloud's"
        if self.metric == "accuracy":
            points = f"{100 * self.max_drop:g} point{'' if self.max_drop == 0.01 else 's'}"
            claim = f"accuracy is at most {points} below all-cloud's"
        return (
            f"With probability {100 * (1 - self.delta):g} % {claim}: tested on {self.n:,} samples, "
            f"bound {100 * self.bound:.2f}, certificate {self.certificate_id}."
        )

    def write(self, file: Path) -> None:
        """Write the certificate as JSON, atomically; raises `InvalidInput` if that fails."""
        temporary = file.with_suffix(".part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            temporary.replace(file)
        except OSError as error:
            raise InvalidInput(
                f"out: {file} cannot be written ({error.strerror}); give another file", field="out"
            ) from None


def _content_id(content: CertificateContent) -> str:
    fields = content.model_dump(mode="json", exclude={"certificate_id"})
    if content.runtime == "onnx":
        del fields["runtime"]  # the identifiers of earlier versions remain valid
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_certificate(
    path: Path | str,
    bundle: Bundle,
    now: datetime | None = None,
    mobile_layers: int | None = None,
    edge_layers: int | None = None,
    runtime: tuple[Tier, Runtime] | None = None,
) -> Certificate:
    """Read a certificate and check that it is valid for ``bundle`` at ``now`` (default: the clock).

    ``runtime`` is what runs the layers of a tier that loads the certificate. Raises `BundleError`,
    whose message says what to do, if the file cannot be read, was modified or has expired, or is
    for other labels, another bundle, or other m, n or runtime (where given).
    """
    certificate = read_certificate(Path(path))
    labels = bundle.manifest.labels
    if certificate.labels != labels:
        raise BundleError(
            f"certificate: {path} is for the labels {', '.join(certificate.labels)}, but "
            f"{bundle.path} has {', '.join(labels)}; calibrate this bundle: dimee calibrate"
        )
    if certificate.bundle_id != bundle.bundle_id:
        raise BundleError(
            f"certificate: {path} is for the bundle {certificate.bundle_id}, but {bundle.path} is "
            f"{bundle.bundle_id}; calibrate this bundle: dimee calibrate"
        )
    for name, option, given, certified in (
        ("m", "--mobile-layers", mobile_layers, certificate.mobile_layers),
        ("n", "--edge-layers", edge_layers, certificate.edge_layers),
    ):
        if given is not None and given != certified:
            raise BundleError(
                f"certificate: {path} is for {name} = {certified}, but {name} is {given} here; "
                f"set {option} {certified}, or calibrate again: dimee calibrate"
            )
    if runtime is not None:
        _check_runtime(path, certificate, *runtime)
    if certificate.expired(now):
        raise BundleError(
            f"certificate: {path} was made at the prices {certificate.prices.price_book}, which "
            f"expired on {certificate.expires:%Y-%m-%d %H:%M %Z}; calibrate "
            "again at today's prices: dimee calibrate"
        )
    return certificate


def _check_runtime(
    path: Path | str, certificate: Certificate, tier: Tier, runtime: Runtime
) -> None:
    certified = certificate.runtime if tier is Tier.CLOUD else "onnx"
    if runtime == certified:
        return
    setting = {"onnx": "cpu", "cuda": "cuda"}[certified]
    raise BundleError(
        f"certificate: {path} is for the runtime {certified} of the {tier}, which runs "
        f"{runtime} here; set DIMEE_DEVICE={setting}"
        + (f", or calibrate: dimee calibrate --runtime {runtime}" if tier is Tier.CLOUD else "")
    )


def certified_policy(certificate: Certificate, bundle: Bundle) -> CascadeRouting | DimeeFixed:
    """Return the policy of the certificate at its thresholds and prices.

    The certificate covers this policy object in its initial conditions. `cascade-routing` decides
    differently at other prices, with a price of waiting, with a deadline that a tier cannot meet,
    or while a tier is unavailable. (A request that fails over to the cloud gets the cloud's
    answer.) Raises `BundleError` for another policy's certificate, and `InvalidInput` for one of
    `cascade-routing` and a bundle without correctness heads.
    """
    thresholds = certificate.thresholds
    if thresholds.keys() != _THRESHOLDS.get(certificate.policy):
        known = " or ".join(
            f"{policy!r} with {', '.join(sorted(names))}" for policy, names in _THRESHOLDS.items()
        )
        raise BundleError(
            f"certificate: {certificate.certificate_id} is for the policy {certificate.policy!r} "
            f"with {', '.join(thresholds)}; this version needs {known}; calibrate again: "
            "dimee calibrate"
        )
    if certificate.policy == DimeeFixed.name:
        return DimeeFixed(*bundle.router(), alpha=thresholds["alpha"])
    return CascadeRouting(
        bundle.correctness_heads(),
        certificate.prices.cost_model(bundle.manifest.layers),
        cost_weight=thresholds["cost_weight"],
        alpha=thresholds["alpha"],
    )


def read_certificate(file: Path) -> Certificate:
    """Read a certificate without checking it against a bundle; raises `BundleError`."""
    try:
        raw = read_limited(file, LARGEST_BYTES)
    except OSError as error:
        raise BundleError(
            f"certificate: {file} cannot be read ({error.strerror}); make one with: dimee calibrate"
        ) from None
    try:
        return parse_document(raw, Certificate)
    except ValueError as error:
        raise BundleError(
            f"certificate: {file} is not a certificate of format {FORMAT_VERSION} "
            f"({error}); calibrate again: dimee calibrate"
        ) from None
