"""A testbed whose services accept only the tokens of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.credentials import Credentials
from shared.serving.tokens import new_token
from testbed.processes.processes import Testbed
from tests.support.running_testbed import start

SYSTEM_SCOPES = ["infer", "ledger:write", "ledger:read"]


@dataclass
class SecuredTestbed:
    """A testbed whose services accept only the tokens of the file ``tokens``."""

    testbed: Testbed
    tokens: Path

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return self.testbed.roles["mobile"].url

    def ledger_credentials(self) -> Credentials:
        """Return credentials that may read the ledger."""
        return Credentials(token=self.token("reader", "ledger:read"))

    def token(self, name: str, *scopes: str) -> str:
        """Return a new token with these scopes."""
        return new_token(self.tokens, name, scopes)[0]


@contextmanager
def secured_testbed(folder: Path) -> Iterator[SecuredTestbed]:
    """Start a testbed with its tokens and state in ``folder``, and stop it at the end."""
    tokens, system = folder / "tokens.jsonl", folder / "system.token"
    system.write_text(new_token(tokens, "system", SYSTEM_SCOPES)[0])
    system.chmod(0o600)
    running = start(folder / "state", DIMEE_TOKENS=str(tokens), DIMEE_TOKEN_FILE=str(system))
    with running:
        yield SecuredTestbed(running, tokens)
