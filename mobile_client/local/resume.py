"""Chooses between sending a hidden state and sending the text to the next tier."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.inference.codec import Codec, Floats, encode, encoded_bytes, worth_resuming
from shared.wire import InferResponse

SMOOTHING = 0.2
"""Weight of the newest measurement in a mean."""


@dataclass(frozen=True, eq=False, slots=True)
class HiddenState:
    """``hidden_TH``: the output of ``layer`` on the mobile for one text."""

    hidden_TH: Floats
    layer: int


class Resumption:
    """Chooses the faster of the two for each attempt, by measured encoding and layer times.

    ``last_layers`` is the number of layers that each tier runs, by the mobile's settings.
    """

    def __init__(
        self, settings: MobileSettings, bundle_id: str, last_layers: dict[Tier, int]
    ) -> None:
        self._mode = settings.resume
        self._codec: Codec = settings.resume_codec
        self._uplink_mbps = settings.uplink_mbps
        self._bundle_id = bundle_id
        self.last_layers = last_layers
        uplink_known = self._uplink_mbps is not None
        self.needs_hidden_states = self._mode == "always" or (self._mode == "auto" and uplink_known)
        """True if hidden states may be sent and must therefore be kept."""
        self._encode_ms: float | None = None
        self._layer_ms_per_token: dict[Tier, float] = {}

    def layer_ms(self, tier: Tier, tokens: int) -> float | None:
        """Return the estimated milliseconds of one layer at ``tier``; None before an answer."""
        # per token: one long text would otherwise make every short one look slow
        rate_ms = self._layer_ms_per_token.get(tier)
        return None if rate_ms is None else rate_ms * tokens

    def choose(self, state: HiddenState, tier: Tier) -> bytes | None:
        """Return the encoded state to send to ``tier``, or None to send the text."""
        # a tier without further layers, such as the mobile itself, cannot resume
        last = self.last_layers.get(tier, 0)
        if state.layer >= last or not self._saves_time(state, tier):
            return None
        started = time.perf_counter()
        try:
            body = encode(state.hidden_TH, state.layer, self._bundle_id, self._codec)
        except InvalidInput:
            return None
        self._encode_ms = _smoothed(self._encode_ms, (time.perf_counter() - started) * 1e3)
        return body

    def _saves_time(self, state: HiddenState, tier: Tier) -> bool:
        if self._mode != "auto":
            return self._mode == "always"
        tokens, hidden_size = state.hidden_TH.shape
        layer_ms, uplink_mbps = self.layer_ms(tier, tokens), self._uplink_mbps
        if layer_ms is None or uplink_mbps is None:
            return False
        sent_bytes = encoded_bytes(tokens, hidden_size, self._codec)
        # the mobile cannot measure decoding at the tier, which is no more work than encoding
        encode_ms = decode_ms = self._encode_ms or 0.0
        saved_ms = state.layer * layer_ms
        return worth_resuming(sent_bytes, uplink_mbps, encode_ms, decode_ms, saved_ms)

    def learn(self, tier: Tier, answer: InferResponse) -> None:
        """Update the estimated time of a tier's layers from its answer."""
        layers = answer.exit_layer - (answer.resumed_after or 0)
        if layers > 0 and answer.tokens > 0:
            mean_ms = self._layer_ms_per_token.get(tier)
            measured_ms = answer.compute_ms / layers / answer.tokens
            self._layer_ms_per_token[tier] = _smoothed(mean_ms, measured_ms)


def _smoothed(mean: float | None, measured: float) -> float:
    return measured if mean is None else mean + SMOOTHING * (measured - mean)
