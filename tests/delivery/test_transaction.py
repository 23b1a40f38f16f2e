"""The private names of the package transaction."""

from __future__ import annotations

import pytest
from transaction import ThreadTransactionManager, TransactionManager

from pyramid_tasks.delivery._transaction import Status, current, is_failing, resources

NAME = "transaction keeps this elsewhere: see delivery/_transaction"


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("make", [TransactionManager, ThreadTransactionManager])
def test_current(make, explicit):
    """A manager says which transaction it is in, and does not begin one."""
    manager = make()
    manager.explicit = explicit
    assert current(manager) is None, NAME
    assert current(manager) is None, NAME
    transaction = manager.begin()
    assert current(manager) is transaction, NAME
    manager.abort()
    assert current(manager) is None, NAME


def test_failing_commit():
    """A commit is failing for what runs while its error is on its way."""
    seen = []

    class Resource:
        def sortKey(self):  # noqa: N802 the interface
            return ""

        def __getattr__(self, name):
            return lambda _: self.phase(name)

        def phase(self, name):
            seen.append((name, transaction.status))
            if name == "tpc_vote":
                raise ZeroDivisionError

    manager = TransactionManager()
    transaction = manager.begin()
    resource = Resource()
    transaction.join(resource)
    assert list(resources(transaction)) == [resource], NAME
    transaction.addAfterCommitHook(lambda _: seen.append(is_failing(transaction)))
    assert not is_failing(transaction)
    with pytest.raises(ZeroDivisionError):
        manager.commit()
    assert ("tpc_vote", Status.COMMITTING) in seen, NAME
    assert True in seen, NAME
    assert transaction.status == Status.COMMITFAILED, NAME
    assert not is_failing(transaction)
