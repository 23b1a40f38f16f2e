"""Tasks that are deferred in a transaction, as a resource that it commits."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer

from .._pyramid import is_outermost_request
from ..exceptions import DeferError
from ._transaction import Status, current, is_failing
from .immediate import ImmediateDelivery
from .message import Message
from .savepoints import is_rolled_back, open_savepoints

if TYPE_CHECKING:
    from typing import Self

    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.registry import Registry
    from pyramid.request import Request
    from transaction.interfaces import ITransaction

    from ..registry import Delivery

logger = logging.getLogger(__name__)


class Held(Protocol):
    """An item that is held until a transaction commits."""

    def drop(self) -> None:
        """Take note that the transaction did not commit."""


_Item = TypeVar("_Item", bound=Held)


def transaction_of(request: Request) -> ITransaction | None:
    """Return the transaction that the tasks of a request wait for.

    Returns:
        The transaction, or ``None`` if there is nothing to wait for: no transaction has
        begun, or a hook or a synchronizer runs after its end.

    Raises:
        DeferError: A resource defers a task while the transaction commits.
    """
    transaction = current(request.tm)
    if transaction is None:
        return None
    status = transaction.status
    if status in {Status.ACTIVE, Status.DOOMED}:
        return transaction
    if (
        status == Status.COMMITTED
        or is_failing(transaction)
        or _is_sending(transaction)
    ):
        return None
    if status == Status.COMMITTING:
        raise DeferError(
            "A task cannot be deferred while the transaction commits: it would be sent "
            "even if the commit fails. Defer the task before the commit, in a "
            "before-commit hook or in an after-commit hook"
        )
    return transaction  # which has failed, and says so itself


def _is_sending(transaction: Any) -> bool:
    try:
        return bool(transaction.data(TaskDataManager))
    except KeyError:
        return False


class TransactionalDelivery(ImmediateDelivery, ABC):
    """Sends when the transaction of the request commits, and at once without one."""

    is_transactional = True

    def is_direct(self, request: Request) -> bool:
        return transaction_of(request) is None

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        transaction = transaction_of(request)
        if transaction is None:
            return super().deliver(request, signatures)
        messages = [Message(self.app, each) for each in signatures]
        self.hold(request, messages)
        return [message.result for message in messages]

    @abstractmethod
    def hold(self, request: Request, messages: list[Message]) -> None:
        """Keep messages until the transaction of the request commits."""


@implementer(ISavepointDataManager)
class TaskDataManager(ABC, Generic[_Item]):
    """The data manager of a transaction for the tasks that are deferred in it."""

    def __init__(self, manager: Any, registry: Registry) -> None:
        self.transaction_manager = manager
        self.registry = registry
        self._is_joined = False
        # With each item the savepoints of sessions that were open.
        self._held: list[tuple[_Item, tuple[Any, ...]]] = []
        self._messages: list[_Item] = []

    @classmethod
    def of(cls, request: Request, delivery: Delivery) -> Self:
        """Return the data manager of a delivery in the transaction of a request.

        The requests of several applications may share a transaction.
        """
        transaction = request.tm.get()
        try:
            manager: Self = transaction.data(delivery)
        except KeyError:
            manager = cls(request.tm, request.registry)
            transaction.set_data(delivery, manager)
            request.add_finished_callback(manager.warn_if_open)
        if not manager._is_joined:
            transaction.join(manager)
            manager._is_joined = True
        return manager

    def hold(self, request: Request, items: Sequence[_Item]) -> None:
        """Keep items of a request until the transaction commits."""
        transaction = request.tm.get()
        savepoints = open_savepoints(request)
        self._held += [(item, savepoints) for item in items]
        if list(transaction.getAfterAbortHooks()):
            # One of them may be running. Then this one runs too, before the transaction
            # aborts its resources once more. Otherwise it finds nothing left to send.
            transaction.addAfterAbortHook(self._send_held)

    def begin_commit(self, items: list[_Item]) -> None:
        """Prepare for the commit, before any resource is asked to commit."""

    def before_commit(self, items: list[_Item]) -> None:
        """Check, before any resource commits. An error aborts the transaction."""

    def commit_with_others(self) -> None:
        """Commit when the other resources do."""

    @abstractmethod
    def after_commit(self, items: list[_Item]) -> None:
        """Send. This must not raise: nothing can undo the transaction any more."""

    def after_abort(self) -> None:
        """Give back what :meth:`before_commit` took."""

    def sortKey(self) -> str:  # noqa: N802 the name of the interface
        # The last, so that tpc_finish comes after it has committed the others.
        return "~~~pyramid_tasks"

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self, len(self._held))

    def tpc_begin(self, _transaction: Any) -> None:
        """Decide what is committed."""
        self._messages = []
        for item, savepoints in self._held:
            if is_rolled_back(savepoints):
                item.drop()
            else:
                self._messages.append(item)
        self._held = []
        if self._messages:
            self.begin_commit(self._messages)

    def commit(self, _transaction: Any) -> None:
        if self._messages:
            self.before_commit(self._messages)

    def tpc_vote(self, _transaction: Any) -> None:
        """Commit, as resources with one phase, such as SQLAlchemy's, do now."""
        if self._messages:
            self.commit_with_others()

    def tpc_finish(self, transaction: Any) -> None:
        # All other resources have committed: who defers a task now need not wait.
        transaction.set_data(TaskDataManager, self)
        items, self._messages = self._messages, []
        if items:
            self.after_commit(items)

    def tpc_abort(self, _transaction: Any) -> None:
        """Forget all. A transaction may also call this to roll back a savepoint."""
        self.drop_from(0)
        for item in self._messages:
            item.drop()
        self._messages = []
        self._is_joined = False
        self.after_abort()

    abort = tpc_abort

    def drop_from(self, number: int) -> None:
        """Forget the items from a number on."""
        for item, _ in self._held[number:]:
            item.drop()
        del self._held[number:]

    def _send_held(self) -> None:
        items, self._held = [item for item, _ in self._held], []
        if items:
            self.send_at_once(items)

    def send_at_once(self, items: list[_Item]) -> None:
        """Send what was deferred in an after-abort hook.

        This must not raise: the transaction would never end.
        """
        self.after_commit(items)

    def warn_if_open(self, request: Request) -> None:
        """Tell of tasks whose transaction nobody ended. Called when the request ends.

        A transaction with ``tm.active`` belongs to somebody who ends it later, and so
        may the transaction of a request within another request.
        """
        is_open = self._held and "tm.active" not in request.environ
        if is_open and is_outermost_request():
            logger.warning(
                "%d deferred tasks are not sent: the request ended, and its "
                "transaction was neither committed nor aborted. Defer tasks inside "
                '"with request.tm:".',
                len(self._held),
            )


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, manager: TaskDataManager[Any], length: int) -> None:
        self.manager = manager
        self.length = length

    def rollback(self) -> None:
        self.manager.drop_from(self.length)
