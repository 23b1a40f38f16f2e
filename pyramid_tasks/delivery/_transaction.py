"""The name of the package ``transaction`` that its documentation does not have.

Nothing else in the package uses a private name of ``transaction``. It was tried on
transaction 3.0 to 5.1; ``tests/delivery/test_transaction.py`` fails when a new version
changes it.
"""

from __future__ import annotations

from typing import Any


def has_begun(manager: Any) -> bool:
    """Whether a transaction manager is in a transaction.

    There is no public way to ask. ``get()`` of a manager that is not explicit begins a
    transaction, which nobody would commit.
    """
    # The manager of a thread, which is the usual one, has the real one inside.
    return getattr(manager, "manager", manager)._txn is not None
