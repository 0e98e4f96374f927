"""Options of a protocol's call, from its headers and parameters, and headers of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mobile_client.options import RequestOptions
from shared.errors import InvalidInput
from shared.short_line import short_line
from shared.wire import Classification

OPTION_HEADERS = {
    "policy": "x-dimee-policy",
    "mode": "x-dimee-mode",
    "deadline_ms": "x-dimee-deadline-ms",
    "max_cost_lambda": "x-dimee-max-cost-lambda",
}
"""Option of `RequestOptions` → the request's header that sets it."""
_NUMBERS = ("deadline_ms", "max_cost_lambda")
MAX_HEADER_TEXTS = 32
"""Most texts of a call whose answer has a header value for each: clients limit header lines."""


def options_of(headers: Mapping[str, str], parameters: dict[str, Any]) -> RequestOptions:
    """Return the options of a call, and remove them from ``parameters``.

    A parameter takes precedence over the header of the same option. Raises `InvalidInput` for a
    wrong value.
    """
    values: dict[str, Any] = {}
    for option, header in OPTION_HEADERS.items():
        if parameters.get(option) is not None:
            values[option] = parameters[option]
        elif header in headers:
            text = headers[header]
            values[option] = _number(header, text) if option in _NUMBERS else text
        parameters.pop(option, None)
    if not isinstance(values.get("policy", ""), str):  # Python callers may give an object
        raise InvalidInput("policy: must be the name of a policy", field="policy")
    return RequestOptions(**values)


def _number(header: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{header}: must be a number", field=header)
    return number


def answer_headers(answers: list[Classification]) -> dict[str, str]:
    """Return the headers of an answer.

    ``x-dimee-cost-lambda`` is the cost of all texts of the call together, in λ. The others hold a
    value for each text, in their order and separated by ", "; a call of more than
    `MAX_HEADER_TEXTS` texts has none of them.
    """
    headers = {"x-dimee-cost-lambda": f"{sum(one.cost.cost_lambda for one in answers):g}"}
    if len(answers) <= MAX_HEADER_TEXTS:
        headers |= {
            "x-dimee-tier": ", ".join(one.tier.value for one in answers),
            "x-dimee-exit-layer": ", ".join(str(one.exit_layer) for one in answers),
            "x-dimee-request-id": ", ".join(one.request_id for one in answers),
        }
    return headers


def refuse_unknown(parameters: Mapping[str, Any], prefix: str = "") -> None:
    """Raise `InvalidInput` if a parameter is left that no part of the protocol has read."""
    for name in parameters:
        field = short_line(f"{prefix}{name}", 100)
        raise InvalidInput(
            f"{field}: is not a parameter that this service knows; leave it out", field=field
        )
