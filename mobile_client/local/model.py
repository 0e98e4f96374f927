"""The part of a mobile that several mobiles of one process can share: bundle, layers, threads."""

from __future__ import annotations

import logging

from mobile_client.local.worker import Worker
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.inference.classifier import Classifier

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""Longest wait in seconds, when the client closes, for work of the worker thread."""


class LocalModel:
    """A loaded bundle, and the threads that tokenize and run layers 1..m.

    It holds nothing of a single mobile: no policy, no measured delay, no breaker, no outbox.
    """

    def __init__(self, settings: MobileSettings) -> None:
        self.bundle: Bundle = load_bundle(settings.bundle)
        self.layers = tier_layers(self.bundle, settings.mobile_layers, settings.edge_layers)
        self.classifier = Classifier(self.bundle, self.layers.mobile, settings.threads)
        self.worker = Worker("mobile-layers")
        self.tokenizing = Worker("mobile-tokenizer")

    def close(self) -> None:
        """Drop waiting work, and wait up to `CLOSE_S` until the running work has ended."""
        workers = (self.tokenizing, self.worker)
        ended = [worker.close(CLOSE_S) for worker in workers]
        if not all(ended):
            log.error("the mobile's layers or a policy still run; the client closes without them")
