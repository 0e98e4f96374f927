"""Whether the next tier goes on from the mobile's hidden state or starts again from the text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.inference.codec import Codec, Floats, encode, encoded_bytes, worth_resuming
from shared.wire import InferResponse

WEIGHT = 0.2  # of the newest measurement


@dataclass(frozen=True, eq=False, slots=True)
class HiddenState:
    """``hidden_TH``: the output of ``layer`` on the mobile for one text."""

    hidden_TH: Floats
    layer: int


class Resumption:
    """Chooses for each attempt, by what encoding and the tiers' layers have been seen to take.

    ``last_layers`` are the layers that each tier runs, as far as the mobile's settings know.
    """

    def __init__(
        self, settings: MobileSettings, bundle_id: str, last_layers: Mapping[Tier, int]
    ) -> None:
        self._mode = settings.resume
        self._codec: Codec = settings.resume_codec
        self._uplink_mbps = settings.uplink_mbps
        self._bundle_id = bundle_id
        self.last_layers = last_layers
        self._encode_ms = 0.0
        self._layer_ms_per_token: dict[Tier, float] = {}

    @property
    def wanted(self) -> bool:
        """Whether hidden states are worth keeping at all."""
        known = self._uplink_mbps is not None
        return self._mode == "always" or (self._mode == "auto" and known)

    def layer_ms(self, tier: Tier, tokens: int) -> float | None:
        """What a layer takes at ``tier`` for such a text, by its answers; None before the first."""
        # by the token: one long text would otherwise make every short one look slow
        rate_ms = self._layer_ms_per_token.get(tier)
        return None if rate_ms is None else rate_ms * tokens

    def choose(self, state: HiddenState | None, tier: Tier) -> bytes | None:
        """The state as ``tier`` should get it, or None: send the text."""
        # the mobile itself goes on from nothing: it has no more layers to run
        last = self.last_layers.get(tier, 0)
        if state is None or state.layer >= last or not self._pays(state, tier):
            return None
        started = time.perf_counter()
        try:
            body = encode(state.hidden_TH, state.layer, self._bundle_id, self._codec)
        except InvalidInput:
            return None
        self._encode_ms = _towards(self._encode_ms or None, (time.perf_counter() - started) * 1e3)
        return body

    def _pays(self, state: HiddenState, tier: Tier) -> bool:
        if self._mode != "auto":
            return self._mode == "always"
        tokens, hidden_size = state.hidden_TH.shape
        layer_ms, uplink_mbps = self.layer_ms(tier, tokens), self._uplink_mbps
        if layer_ms is None or uplink_mbps is None:
            return False
        sent_bytes = encoded_bytes(tokens, hidden_size, self._codec)
        # what decoding takes elsewhere the mobile cannot see; it is no more work than encoding
        ours = theirs = self._encode_ms
        return worth_resuming(sent_bytes, uplink_mbps, ours, theirs, state.layer * layer_ms)

    def learn(self, tier: Tier, answer: InferResponse) -> None:
        """Take in what a tier says that its layers took."""
        ran = answer.exit_layer - (answer.resumed_after or 0)
        if ran > 0 and answer.tokens > 0:
            known = self._layer_ms_per_token
            known[tier] = _towards(known.get(tier), answer.compute_ms / ran / answer.tokens)


def _towards(average: float | None, measured: float) -> float:
    return measured if average is None else average + WEIGHT * (measured - average)
