"""A lock that a process waits for before it forks."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet


class ForkLock:
    """A thread has it while it does what a fork must not interrupt.

    A module that the thread is importing, for example, would never be complete in the
    child. The thread that has the lock may fork all the same.

    Args:
        timeout: For how many seconds a fork waits.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.RLock()
        self._process = os.getpid()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire_to_fork(self) -> bool:
        """Wait for the lock, and return whether it is to be released after the fork."""
        # A fork copies a lock, but not the thread that has it.
        is_own = self._process == os.getpid()
        return is_own and self._lock.acquire(timeout=self._timeout)


_locks: WeakSet[ForkLock] = WeakSet()
_acquired: list[ForkLock] = []


def _before_fork() -> None:
    _acquired.extend(lock for lock in list(_locks) if lock.acquire_to_fork())


def _after_fork() -> None:
    while _acquired:
        _acquired.pop().__exit__()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
