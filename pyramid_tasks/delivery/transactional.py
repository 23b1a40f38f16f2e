"""Tasks that are deferred in a transaction, as a resource that it commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer

from ._transaction import has_begun
from .immediate import ImmediateDelivery
from .message import Message

if TYPE_CHECKING:
    from typing import Self

    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.request import Request

_Item = TypeVar("_Item")


class TransactionalDelivery(ImmediateDelivery):
    """Sends when the transaction of the request commits, and at once without one."""

    is_transactional = True

    def is_direct(self, request: Request) -> bool:
        return not has_begun(request.tm)

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        if self.is_direct(request):
            return super().deliver(request, signatures)
        messages = [Message(self.app, each) for each in signatures]
        self.hold(request, messages)
        return [message.result for message in messages]

    def hold(self, request: Request, messages: list[Message]) -> None:
        """Keep messages until the transaction of the request commits."""
        raise NotImplementedError


@implementer(ISavepointDataManager)
class TaskDataManager(Generic[_Item]):
    """The data manager of a transaction for the tasks that are deferred in it.

    Attributes:
        messages: The tasks, in the order of deferring.
    """

    def __init__(self, request: Request) -> None:
        self.transaction_manager = request.tm
        self.registry = request.registry
        self.messages: list[_Item] = []

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return the data manager in the transaction of a request."""
        transaction = request.tm.get()
        try:
            manager: Self = transaction.data(cls)
        except KeyError:
            manager = cls(request)
            transaction.set_data(cls, manager)
            transaction.join(manager)
        return manager

    def before_commit(self, messages: list[_Item]) -> None:
        """Check, before any resource commits. An error aborts the transaction."""

    def after_commit(self, messages: list[_Item]) -> None:
        """Send. This must not raise: nothing can undo the transaction any more."""
        raise NotImplementedError

    def sortKey(self) -> str:  # noqa: N802 the name of the interface
        # The last, so that tpc_finish comes after it has committed the others.
        return "~~~pyramid_tasks"

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self.messages)

    def tpc_begin(self, _transaction: Any) -> None:
        """Do nothing."""

    def commit(self, _transaction: Any) -> None:
        if self.messages:
            self.before_commit(self.messages)

    def tpc_vote(self, _transaction: Any) -> None:
        """Do nothing. Resources with one phase, such as SQLAlchemy's, commit now."""

    def tpc_finish(self, _transaction: Any) -> None:
        messages, self.messages = self.messages, []
        if messages:
            self.after_commit(messages)

    def tpc_abort(self, _transaction: Any) -> None:
        self.messages = []

    abort = tpc_abort


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        self.length = len(messages)

    def rollback(self) -> None:
        del self.messages[self.length :]
