"""The private names of the package transaction."""

from __future__ import annotations

import pytest
from transaction import ThreadTransactionManager, TransactionManager
from transactional import Resource

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
    manager = TransactionManager()
    transaction = manager.begin()

    def fail():
        seen.append(transaction.status)
        raise ZeroDivisionError

    resource = Resource("tpc_vote", fail)
    transaction.join(resource)
    assert list(resources(transaction)) == [resource], NAME

    def hook(_):
        other = TransactionManager().begin()
        seen.extend(is_failing(each) for each in (transaction, other))

    transaction.addAfterCommitHook(hook)
    assert not is_failing(transaction)
    with pytest.raises(ZeroDivisionError):
        manager.commit()
    assert seen == [Status.COMMITTING, True, False], NAME
    assert transaction.status == Status.COMMITFAILED, NAME
    try:
        fail()
    except ZeroDivisionError:  # which has nothing to do with the commit
        assert not is_failing(transaction)
