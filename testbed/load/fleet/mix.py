"""The mix of a fleet: its classes of devices, read from a JSON file.

::

    {"classes": [
        {"name": "4g", "share": 0.7, "link": "4g", "policy": "cascade-routing",
         "requests_per_s": 0.1, "escalation_budget": 0.2},
        {"name": "train", "share": 0.3, "link": "4g,up=uplink.trace", "requests_per_s": 0.05}
    ]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.documents import parse_document
from shared.errors import InvalidInput
from shared.field_types import DeadlineMs
from shared.files import read_limited
from testbed.links.schedule import LinkState, parse_state

LARGEST_BYTES = 1_000_000
MAX_CLASSES = 20
_SHARES_DIFFER = 1e-6
_EXAMPLE = (
    '{"classes": [{"name": "4g", "share": 1.0, "link": "4g", "policy": "cascade-routing", '
    '"requests_per_s": 0.1}]}'
)


class DeviceClass(BaseModel):
    """Devices with the same link and settings; each has its own link, budget and outbox."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=40)]
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the devices; the shares of all classes sum to 1."""
    link: Annotated[str, Field(max_length=1_000)]
    """Profile of `shared.link_profiles`, with changes or packet traces, as for ``--link``. Traces
    are relative to the mix file's folder."""
    policy: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Built-in or installed policy; None for the bundle's default."""
    requests_per_s: Annotated[float, Field(gt=0, le=100)]
    """Mean requests a second of each device, as a Poisson process."""
    escalation_budget: Annotated[float, Field(ge=0, le=10)] | None = None
    escalation_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Escalations that each request earns, and that a device starts with; None for no budget."""
    deadline_ms: DeadlineMs = 5_000.0


class Mix(BaseModel):
    """Content of a mix file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Annotated[list[DeviceClass], Field(min_length=1, max_length=MAX_CLASSES)]


def read_mix(file: Path) -> Mix:
    """Read a mix file; raises `InvalidInput` that names the wrong field."""
    try:
        raw = read_limited(file, LARGEST_BYTES)
    except OSError as error:
        raise InvalidInput(
            f"mix: {file} cannot be read ({error.strerror}); give a file such as {_EXAMPLE}"
        ) from None
    try:
        mix = parse_document(raw, Mix)
    except ValueError as error:
        raise InvalidInput(f"mix: {file}: {error}") from None
    names = [one.name for one in mix.classes]
    if len(set(names)) < len(names):
        raise InvalidInput(f"mix: {file}: two classes have the same name; give each its own")
    total = sum(one.share for one in mix.classes)
    if abs(total - 1) > _SHARES_DIFFER:
        raise InvalidInput(f"mix: {file}: the shares sum to {total:g}; they must sum to 1")
    for one in mix.classes:
        link_of(one, file.parent)
    return mix


def link_of(one: DeviceClass, folder: Path) -> LinkState:
    """Return the link of a class; raises `InvalidInput`."""
    try:
        state = parse_state(one.link, folder)
    except InvalidInput as error:
        raise InvalidInput(f"mix: class {one.name}: {error.message}") from None
    if state.link is None:
        raise InvalidInput(f"mix: class {one.name}: the link is an outage; give a link")
    return state


def apportion(mix: Mix, devices: int) -> list[int]:
    """Return the number of devices of each class, by largest remainders.

    Raises `InvalidInput` if a class would have none.
    """
    exact = [one.share * devices for one in mix.classes]
    counts = [int(number) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: devices - sum(counts)]:
        counts[i] += 1
    for one, count in zip(mix.classes, counts, strict=True):
        if not count:
            raise InvalidInput(
                f"mix: class {one.name} has no device among {devices}; raise --devices or its share"
            )
    return counts
