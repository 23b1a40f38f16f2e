"""The private name of the package transaction."""

from __future__ import annotations

import pytest
from transaction import ThreadTransactionManager, TransactionManager

from pyramid_tasks.delivery._transaction import has_begun


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("make", [TransactionManager, ThreadTransactionManager])
def test_has_begun(make, explicit):
    """A manager says whether it is in a transaction, and does not begin one."""
    manager = make()
    manager.explicit = explicit
    name = "where transaction keeps the current transaction: see delivery/_transaction"
    assert has_begun(manager) is False, name
    assert has_begun(manager) is False, name
    manager.begin()
    assert has_begun(manager) is True, name
    manager.abort()
    assert has_begun(manager) is False, name
