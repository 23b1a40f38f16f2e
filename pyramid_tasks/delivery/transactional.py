"""The tasks deferred in a transaction, as one of the resources that it commits."""

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


def in_transaction(request: Request) -> bool:
    """Whether a transaction of the request has begun."""
    return has_begun(request.tm)


class TransactionalDelivery(ImmediateDelivery):
    """Sends when the transaction of the request commits, and at once without one.

    Everything that can be wrong with the call is found now, in the code that made it.
    """

    is_transactional = True

    def is_direct(self, request: Request) -> bool:
        return not in_transaction(request)

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        if not in_transaction(request):
            return super().deliver(request, signatures)
        messages = [Message(self.app, each) for each in signatures]
        self.hold(request, messages)
        return [message.result for message in messages]

    def hold(self, request: Request, messages: list[Message]) -> None:
        """Keep messages until the transaction of the request commits."""
        raise NotImplementedError


@implementer(ISavepointDataManager)
class Outgoing(Generic[_Item]):
    """What a transaction has to send, in order.

    A subclass says what to do before anything commits, in :meth:`prepare`, and once
    everything has, in :meth:`deliver`.
    """

    def __init__(self, request: Request) -> None:
        self.transaction_manager = request.tm
        self.registry = request.registry
        self.messages: list[_Item] = []

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return that of the transaction of a request."""
        transaction = request.tm.get()
        try:
            outgoing: Self = transaction.data(cls)
        except KeyError:
            outgoing = cls(request)
            transaction.set_data(cls, outgoing)
            transaction.join(outgoing)
        return outgoing

    def prepare(self, messages: list[_Item]) -> None:
        """Check, before any resource commits anything; an error aborts."""

    def deliver(self, messages: list[_Item]) -> None:
        """Send. The transaction cannot be undone any more: this must not raise."""
        raise NotImplementedError

    def sortKey(self) -> str:  # noqa: N802 the name of the interface
        # The last: when others finish their commit in tpc_finish, ours is after it.
        return "~~~pyramid_tasks"

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self.messages)

    def tpc_begin(self, _transaction: Any) -> None:
        """Do nothing."""

    def commit(self, _transaction: Any) -> None:
        if self.messages:
            self.prepare(self.messages)

    def tpc_vote(self, _transaction: Any) -> None:
        """Do nothing: resources of one phase, as SQLAlchemy, commit meanwhile."""

    def tpc_finish(self, _transaction: Any) -> None:
        messages, self.messages = self.messages, []
        if messages:
            self.deliver(messages)

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
