"""Delivery by commit: a task deferred in a transaction is sent when that commits."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import KombuError
from kombu.serialization import dumps, loads
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer

from ..delivery import deliver_immediately
from ..events import TaskDeliveryFailed
from ..exceptions import BrokerUnavailable, ResultNotReady
from ..registry import check_arguments, get_tasks

if TYPE_CHECKING:
    from celery import Task
    from pyramid.request import Request

logger = logging.getLogger(__name__)

_DATA_KEY = "pyramid_tasks.commit"


class PendingResult(AsyncResult):
    """The result of a task that is sent when the transaction commits."""

    sent = False

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the result; as in Celery, once the task has been sent.

        Raises:
            ResultNotReady: The transaction has not committed.
        """
        if not self.sent:
            raise ResultNotReady(self.id)
        return super().get(*args, **kwargs)

    wait = get

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.sent and bool(super().ready())


def deliver_on_commit(
    request: Request,
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> AsyncResult:
    """Send a task when the transaction of the request commits, or at once without one.

    Everything that can be wrong with the call is found now, in the code that made it.
    """
    # Private, but the only way to ask: get() of a manager that is not explicit begins
    # a transaction, which nobody would commit.
    manager = getattr(request.tm, "manager", request.tm)
    if manager._txn is None:  # noqa: SLF001
        return deliver_immediately(request, task, args, kwargs, options)
    message = _Message(request, task, args, kwargs, options)
    transaction = request.tm.get()
    try:
        outgoing = transaction.data(_DATA_KEY)
    except KeyError:
        outgoing = _Outgoing(request)
        transaction.set_data(_DATA_KEY, outgoing)
        transaction.join(outgoing)
    outgoing.messages.append(message)
    return message.result


class _Message:
    """A call as it will be sent: checked, and independent of what the caller keeps."""

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        check_arguments(task, args, kwargs)
        # Celery 5.7 and later send pydantic models as dictionaries.
        if dump := getattr(task, "_dump_pydantic_arguments", None):
            args, kwargs = dump(args, kwargs)
        serializer = options.get("serializer") or task.serializer
        content_type, encoding, body = dumps((args, kwargs), serializer)
        self.args, self.kwargs = loads(
            body, content_type, encoding, accept={content_type}
        )
        self.task = task
        self.options = {"task_id": uuid(), **_as_of_now(options)}
        self.result = PendingResult(
            self.options["task_id"],
            app=get_tasks(request.registry).app,
            task_name=task.name,
        )

    def send(self) -> None:
        self.task.apply_async(self.args, self.kwargs, **self.options)
        self.result.sent = True


def _as_of_now(options: dict[str, Any]) -> dict[str, Any]:
    """Return options whose times are counted from now, not from the commit."""
    now = datetime.now(timezone.utc)
    options = dict(options)
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), (int, float)):
        options["expires"] = now + timedelta(seconds=expires)
    return options


@implementer(ISavepointDataManager)
class _Outgoing:
    """The messages of a transaction, as one of the resources it commits."""

    def __init__(self, request: Request) -> None:
        self.transaction_manager = request.tm
        self.registry = request.registry
        self.messages: list[_Message] = []

    def sortKey(self) -> str:  # noqa: N802 the name of the interface
        # The last: when others finish their commit in tpc_finish, ours is after it.
        return "~~~pyramid_tasks"

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self.messages)

    def tpc_begin(self, _transaction: Any) -> None:
        """Do nothing."""

    def commit(self, _transaction: Any) -> None:
        """Check the broker, before any resource commits anything."""
        if self.messages:
            _check_broker(self.registry)

    def tpc_vote(self, _transaction: Any) -> None:
        """Do nothing: resources of one phase, as SQLAlchemy, commit meanwhile."""

    def tpc_finish(self, _transaction: Any) -> None:
        """Send; what fails now is reported, as the transaction cannot be undone."""
        messages, self.messages = self.messages, []
        for message in messages:
            try:
                message.send()
            except Exception as error:
                logger.exception(
                    "The transaction committed, but its task could not be sent. Send "
                    "it by hand: %s args=%r kwargs=%r options=%r",
                    message.task.name,
                    message.args,
                    message.kwargs,
                    message.options,
                )
                self.registry.notify(
                    TaskDeliveryFailed(
                        self.registry,
                        message.task,
                        message.args,
                        message.kwargs,
                        message.options,
                        error,
                    )
                )

    def tpc_abort(self, _transaction: Any) -> None:
        self.messages = []

    abort = tpc_abort


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, messages: list[_Message]) -> None:
        self.messages = messages
        self.length = len(messages)

    def rollback(self) -> None:
        del self.messages[self.length :]


def _check_broker(registry: Any) -> None:
    tasks = get_tasks(registry)
    if tasks.app.conf.task_always_eager:
        return
    timeout = float(registry.settings.get("pyramid_tasks.delivery_timeout", 2))
    try:
        with tasks.app.connection_for_write(connect_timeout=timeout) as connection:
            connection.ensure_connection(max_retries=1, timeout=timeout)
    except (KombuError, OSError) as error:
        raise BrokerUnavailable(connection.as_uri(), error) from error
