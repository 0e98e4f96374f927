"""Budget of escalations for each client, which limits the cost of inputs that never exit early."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_CLIENTS = 10_000
EXHAUSTED = "budget_exhausted"
OFFLINE, UNAVAILABLE = "offline", "unavailable"
"""Values of the ledger's ``error_code`` for an answer that was not escalated because the budget was
exhausted (`EXHAUSTED`), or that the mobile gave because no server did (the other two)."""
CERTIFICATE = "certificate"
"""``degraded_because`` of an answer of the cloud after an alarm about the certificate."""
WITHHELD = frozenset({EXHAUSTED, OFFLINE, UNAVAILABLE})


@dataclass(slots=True)
class _Account:
    credits: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """Permission of one request to escalate; without ``account`` it is not limited."""

    account: _Account | None = None

    def take(self) -> bool:
        """Take one escalation from the account; return False if none is left."""
        if self.account is None:
            return True
        if self.account.credits < 1:
            return False
        self.account.credits -= 1
        return True


class EscalationBudget:
    """Each request earns its client ``share`` escalations, and each escalation costs one.

    A client starts with ``burst`` and never has more: of n requests at most share · n + burst are
    escalated, for any inputs and any rate. Beyond ``max_clients``, the least recently seen client
    is removed; if it returns, it starts with ``burst`` again.
    """

    def __init__(self, share: float, burst: float, max_clients: int = MAX_CLIENTS) -> None:
        self._share = share
        self._burst = burst
        self._max_clients = max_clients
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def allowance(self, client: str) -> Allowance:
        """Count one request of this client, and return its allowance."""
        account = self._accounts.setdefault(client, _Account(self._burst))
        account.credits = min(self._burst, account.credits + self._share)
        self._accounts.move_to_end(client)
        if len(self._accounts) > self._max_clients:
            self._accounts.popitem(last=False)
        return Allowance(account)
