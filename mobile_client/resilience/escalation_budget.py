"""How much of a client's requests may be escalated: inputs can be crafted never to exit early."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

MAX_CLIENTS = 10_000
EXHAUSTED = "budget_exhausted"
OFFLINE, UNAVAILABLE = "offline", "unavailable"
"""What the ledger holds (`error_code`) of an answer that was kept for want of budget, or of the
mobile's where a server's was wanted."""
KEPT = frozenset({EXHAUSTED, OFFLINE, UNAVAILABLE})


@dataclass(slots=True)
class _Account:
    credits: float


@dataclass(slots=True)
class Allowance:
    """What one request may take of its client's account; without an account it takes freely.

    ``void``: why its answer is under no promise, for another reason than an exhausted budget.
    """

    account: _Account | None = None
    exhausted: bool = field(default=False, init=False)
    void: str | None = field(default=None, init=False)

    def take(self) -> bool:
        """Whether one more escalation may be made; it is paid for here."""
        if self.account is None:
            return True
        if self.account.credits < 1:
            self.exhausted = True
            return False
        self.account.credits -= 1
        return True


class EscalationBudget:
    """Each request of a client earns it ``share`` escalations, each escalation costs one.

    A client begins with ``burst`` and never has more: of n requests at most share · n + burst are
    escalated, whatever the inputs and however fast they come. No share: no budget. The least
    recently seen clients beyond ``remembered`` are forgotten, and begin anew.
    """

    def __init__(self, share: float | None, burst: float, remembered: int = MAX_CLIENTS) -> None:
        self._share = share
        self._burst = burst
        self._remembered = remembered
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def allow(self, client: str) -> Allowance:
        """Count one request of this client."""
        if self._share is None:
            return Allowance()
        account = self._accounts.setdefault(client, _Account(self._burst))
        account.credits = min(self._burst, account.credits + self._share)
        self._accounts.move_to_end(client)
        if len(self._accounts) > self._remembered:
            self._accounts.popitem(last=False)
        return Allowance(account)
