"""Base of objects that only the process that created them may use."""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet

_bound: WeakSet[ProcessBound] = WeakSet()
_registered = False


class ProcessBound:
    """Object with threads, locks or open files, which do not survive `os.fork` in the child.

    Call `bind_to_process` at the end of the constructor. A forked child inherits the object without
    its threads. There `is_foreign` is True, and the object is never deleted: SQLite forbids to
    close a connection of the parent, and onnxruntime would wait for threads that do not exist.
    """

    _process_id: int = 0

    def bind_to_process(self) -> None:
        """Make the running process the owner."""
        global _registered
        self._process_id = os.getpid()
        _bound.add(self)
        if not _registered:
            _registered = True
            os.register_at_fork(after_in_child=_leave_to_parent)

    @property
    def is_foreign(self) -> bool:
        """True in a process other than the one that created the object."""
        return self._process_id not in (0, os.getpid())

    @property
    def owner_id(self) -> int:
        """Id of the process that created the object."""
        return self._process_id

    def after_fork_in_child(self) -> None:
        """Release, in a forked child, what the parent must not lose to it; nothing by default."""


def _leave_to_parent() -> None:
    inherited = list(_bound)
    _bound.clear()  # a process that this child forks has nothing more to release of them
    for owned in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))
        owned.after_fork_in_child()
