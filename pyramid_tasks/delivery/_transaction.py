"""The names of the package ``transaction`` that its documentation does not have.

Nothing else in the package uses a private name of ``transaction``. They were tried on
transaction 3.0 to 5.1; ``tests/delivery/test_transaction.py`` fails when a new version
changes one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from transaction._transaction import Status

if TYPE_CHECKING:
    from transaction.interfaces import ITransaction

__all__ = ["Status", "current", "is_failing", "resources"]


def current(manager: Any) -> ITransaction | None:
    """Return the transaction that a transaction manager is in, if any.

    There is no public way to ask. ``get()`` of a manager that is not explicit begins a
    transaction, which nobody would commit.
    """
    # The manager of a thread, which is the usual one, has the real one inside.
    return getattr(manager, "manager", manager)._txn


def is_failing(transaction: ITransaction) -> bool:
    """Whether the commit of a transaction has failed, and its error is on its way.

    The status of a transaction does not tell a hook or a synchronizer that runs after
    the failure from a resource that takes part in the commit.
    """
    traceback = sys.exc_info()[2]
    while traceback is not None:
        frame = traceback.tb_frame
        is_commit = frame.f_code.co_name == "_commitResources"
        if is_commit and frame.f_locals.get("self") is transaction:
            return True
        traceback = traceback.tb_next
    return False


def resources(transaction: Any) -> Iterable[Any]:
    """Return the data managers that have joined a transaction."""
    return transaction._resources  # type: ignore[no-any-return]
