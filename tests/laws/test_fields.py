"""Each field has one definition: what one entrance accepts, the ledger accepts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import BigInteger, Float, String

from cloud_server.settings import CloudSettings
from edge_server.settings import EdgeSettings
from mobile_client.options import RequestOptions
from mobile_client.settings import MobileSettings
from shared import field_types
from shared.bundle.manifest import Manifest
from shared.certificates.certificate import Certificate, Prices
from shared.documents import parse_document
from shared.domain import Tier
from shared.errors import DimeeError, InvalidInput, TierFailed
from shared.field_types import MAX_PRICE, Amount, Count, Duration
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import entries
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LambdaPrices, LivePrices, PriceFile, read_price_file
from shared.pricing.price_book import PriceBook
from shared.settings import read_settings
from shared.validation import request_error
from shared.wire import (
    AttemptReport,
    Classification,
    ClassifyRequest,
    CostReport,
    InferRequest,
    InferResponse,
    ResumeRequest,
)
from tests.support.entries import caller
from tests.support.hostile_values import NUMBERS, STRINGS, check_store

SETTINGS: list[type[BaseSettings]] = [MobileSettings, EdgeSettings, CloudSettings, LedgerSettings]
DOCUMENTS: list[type[BaseModel]] = [Manifest, PriceFile, LambdaPrices, Certificate, Prices]
WIRE: list[type[BaseModel]] = [
    InferRequest, ResumeRequest, InferResponse, ClassifyRequest, Classification, AttemptReport,
    CostReport,
]  # fmt: skip
MODELS: list[type[BaseModel]] = [LedgerEntry, *WIRE, *DOCUMENTS, *SETTINGS]
TEXTS = {("InferRequest", "text"), ("InferRequest", "pair"), ("ClassifyRequest", "texts"),
         ("ClassifyRequest", "pairs")}  # fmt: skip
"""Fields that `shared.text.check_text` checks, since their errors name the character."""


def fields(models: list[type[BaseModel]], without: Collection[tuple[str, str]] = ()) -> list[Any]:
    """Return a TypeAdapter for each field, as a parameter of a test."""
    return [
        pytest.param(TypeAdapter(Annotated[field.annotation, field]), id=f"{model.__name__}.{name}")
        for model in models
        for name, field in model.model_fields.items()
        if (model.__name__, name) not in without
    ]


def accepted(kind: TypeAdapter[Any], values: list[Any], strict: bool = False) -> list[Any]:
    """Return the values that a field accepts."""
    found = []
    for value in values:
        try:
            found.append(kind.validate_python(value, strict=strict))
        except ValidationError:
            continue
    return found


@pytest.mark.parametrize("kind", fields([*MODELS, *SETTINGS]))
def test_no_field_accepts_nan_or_infinity(kind: TypeAdapter[Any]) -> None:
    given = [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity"]
    for value in accepted(kind, given):
        assert not isinstance(value, float), value


@pytest.mark.parametrize("model", SETTINGS, ids=lambda model: model.__name__)
def test_no_setting_accepts_a_boolean(model: type[BaseSettings]) -> None:
    for name in model.model_fields:
        with pytest.raises(InvalidInput):
            read_settings(model, **{name: True})


@pytest.mark.parametrize("kind", fields([LedgerEntry, *WIRE, *DOCUMENTS], without=TEXTS))
def test_no_string_has_nul_or_a_surrogate(kind: TypeAdapter[Any]) -> None:
    assert accepted(kind, ["a\0b", "\ud800", ["a\0b", "c"], ["\ud800", "c"]]) == []


@pytest.mark.parametrize("name", [column.name for column in entries.c])
def test_columns_hold_what_the_entry_accepts(name: str) -> None:
    if name == "received_at":  # the ledger's own
        return
    column, kind = entries.c[name], fields_of_entry()[name]
    values = [value for value in accepted(kind, [*STRINGS, *NUMBERS]) if value is not None]
    if isinstance(column.type, String):
        assert column.type.length is not None
        assert all(len(str(value)) <= column.type.length for value in values)
    elif isinstance(column.type, BigInteger):
        assert all(-(2**63) <= value < 2**63 for value in values)
    elif isinstance(column.type, Float):
        assert all(math.isfinite(value) for value in values)


def fields_of_entry() -> dict[str, TypeAdapter[Any]]:
    return {
        name: TypeAdapter(Annotated[field.annotation, field])
        for name, field in LedgerEntry.model_fields.items()
    }


@pytest.mark.parametrize("model", [InferRequest, ResumeRequest, InferResponse, AttemptReport])
def test_entry_accepts_every_field_of_an_attempt(model: type[BaseModel]) -> None:
    """Fields of a request and an answer that have the name of a field of the entry."""
    common = model.model_fields.keys() & LedgerEntry.model_fields.keys()
    assert "attempt_id" in common
    for name in common:
        field = model.model_fields[name]
        kind: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])
        for value in accepted(kind, [*STRINGS, *NUMBERS], strict=True):
            if value is not None:
                fields_of_entry()[name].validate_python(value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Manifest, "labels"),
        (Certificate, "labels"),
    ],
)
def test_entry_accepts_every_label(kind: type[BaseModel], name: str) -> None:
    field = kind.model_fields[name]
    labels: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])
    entry = fields_of_entry()["label"]
    tried = [value for value in STRINGS if accepted(labels, [(value, "other")])]
    assert "スポーツ" * 64 in tried
    for value in tried:
        assert entry.validate_python(value) == value


@pytest.mark.parametrize(
    ("model", "name", "column"),
    [(PriceFile, "version", "price_book"), (Certificate, "certificate_id", "certificate_id")],
)
def test_entry_accepts_every_version(model: type[BaseModel], name: str, column: str) -> None:
    field = model.model_fields[name]
    kind: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])
    for value in accepted(kind, STRINGS):
        assert fields_of_entry()[column].validate_python(value) == value


def test_no_cost_of_accepted_prices_is_refused() -> None:
    """The largest prices, durations and counts together stay below the largest amount."""
    duration, count, amount = (largest(kind) for kind in (Duration, Count, Amount))
    book = PriceBook("p", *[MAX_PRICE] * 5)
    model = CostModel(*[MAX_PRICE] * 5, layers=200)
    for tier in Tier:
        assert book.usd(tier, duration, int(2 * count)) <= amount
        assert book.mobile_energy_mj(tier, duration, int(2 * count)) <= amount
        assert model.attempt(tier, 1000) <= amount
    assert math.isfinite(amount * 1e9)


def largest(kind: Any) -> float:
    """Return the upper bound of a field type."""
    (limit,) = [
        part.le for field in get_args(kind)[1:] for part in field.metadata if hasattr(part, "le")
    ]
    return float(limit)


def test_every_field_type_is_bounded() -> None:
    """Each type of numbers has a lower and an upper bound, each type of strings a length."""
    for name, kind in vars(field_types).items():
        if not get_args(kind) or get_args(kind)[0] not in (int, float, str):
            continue
        schema = TypeAdapter(kind).json_schema()
        if schema["type"] == "string":
            assert "maxLength" in schema or "{" in schema["pattern"], name
        else:
            assert {"minimum", "exclusiveMinimum"} & schema.keys(), name
            assert "maximum" in schema, name


@pytest.mark.parametrize("field", sorted(LedgerEntry.model_fields))
def test_store_keeps_every_accepted_value(field: str, tmp_path: Path) -> None:
    """Hostile values of one field, through the entry's JSON into SQLite and back."""
    store = LedgerStore(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    check_store(store, field)
    store.close()


def test_entry_refuses_facts_that_the_ledger_refuses() -> None:
    wrong: list[dict[str, Any]] = [
        {"label": "a\0b"}, {"label": "x" * 257}, {"confidence": math.nan}, {"exit_layer": -1},
        {"cost_lambda": math.nan}, {"cost_lambda": -1.0}, {"price_book": "v\0"},
        {"compute_ms": math.inf}, {"tokens": -1}, {"label": None},
    ]  # fmt: skip
    for facts in wrong:
        with pytest.raises(TierFailed, match="has no valid result"):
            caller().with_facts(facts)
    assert caller().with_facts({"label": "other"}).label == "other"


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("version", {"version": "v\0"}),
        ("version", {"version": "v" * 65}),
        ("version", {"version": ""}),
        ("cost_model.cloud_fee", '{"version": "v", "cost_model": {"cloud_fee": NaN}}'),
        ("cloud_usd_per_hour", '{"version": "v", "cloud_usd_per_hour": Infinity}'),
        ("cloud_usd_per_hour", '{"version": "v", "cloud_usd_per_hour": 1e999}'),
        ("network_usd_per_gb", {"version": "v", "network_usd_per_gb": -1}),
        ("'version': is there twice", '{"version": "v", "version": "w"}'),
        ("nested too deep", '{"version": ' + "[" * 20_000 + "]" * 20_000 + "}"),
        ("too many digits", '{"version": ' + "1" * 5_000 + "}"),
        ("content: is not UTF-8", b'{"version": "\xff"}'),
        ("content", b""),
    ],
)
def test_changed_price_book_with_a_wrong_field_is_refused_and_the_old_one_stays(
    field: str, content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, now = tmp_path / "prices.json", [0.0]
    file.write_text('{"version": "first", "cost_model": {"cloud_fee": 7}}')
    prices = LivePrices(CostModel.paper(6), file, clock=lambda: now[0])
    if isinstance(content, dict):
        content = json.dumps(content)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    now[0] += 2
    assert not prices.refresh()
    assert (prices.book.version, prices.cost_model.cloud_fee) == ("first", 7)
    (warning,) = caplog.messages
    assert field in warning
    assert "the prices of first stay in force" in warning
    assert "\n" not in warning
    file.write_bytes(b'\xef\xbb\xbf{"version": "second"}')
    now[0] += 2
    assert prices.refresh()
    assert prices.book.version == "second"


def test_price_book_that_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for file in (pipe, loop, tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidInput, match=r"cannot be read \(.*\); give a file") as refused:
            read_price_file(file)
        assert "\n" not in refused.value.message


def test_sdk_refuses_options_as_the_gateway_does() -> None:
    """Each value of an option has the same outcome, field and message in both."""
    tried = 0
    for name in ("policy", "deadline_ms", "mode", "max_cost_lambda"):
        for value in [*STRINGS, *NUMBERS, [], {}, b"x", [1]]:
            if name == "policy" and (not isinstance(value, str) or value == "a:b"):
                continue  # the SDK also takes objects and classes
            http: DimeeError | None = None
            sdk: InvalidInput | None = None
            try:
                ClassifyRequest.model_validate({"texts": ["a"], name: value})
                if name == "mode":
                    RequestOptions(mode=value)
            except ValidationError as error:
                problem = error.errors(include_url=False, include_input=False)[0]
                http = request_error(dict(problem))
            except InvalidInput as error:
                http = error
            try:
                RequestOptions(**{name: value})
            except InvalidInput as error:
                sdk = error
            assert str(sdk) == str(http), (name, value)
            assert getattr(sdk, "field", None) == getattr(http, "field", None)
            tried += http is not None
    assert tried > 60


@pytest.mark.parametrize("value", ["true", '"5"'])
def test_document_refuses_a_boolean_or_a_string_in_the_place_of_a_number(value: str) -> None:
    raw = f'{{"version": "a", "latency_price_lambda": {value}}}'.encode()
    with pytest.raises(ValueError, match="latency_price_lambda: input should be a valid number"):
        parse_document(raw, PriceFile)
