"""The inbox: a task changes the database once, however often its message arrives.

The id of the task and its return value are a row that is committed with the changes.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

from celery.backends.base import DisabledBackend
from celery.exceptions import TaskPredicate
from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import dumps, loads
from sqlalchemy import QueuePool
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from zope.sqlalchemy import mark_changed

from .._celery import dump_result
from .._kombu import raise_limit
from ..delivery.canvas import copy, fix_ids
from ..worker.ending import REPEATED, RETRY, is_left_open
from ..worker.request import notify_before_task
from ..worker.unfinished import check_finished
from .inbox_rows import (
    add,
    count_redelivery,
    find,
    find_anywhere,
    forget_redeliveries,
)
from .models import InboxRow
from .tables import check_inbox_table

if TYPE_CHECKING:
    from celery import Task
    from pyramid.request import Request
    from sqlalchemy import Connection

    from ..configuration.derivers import TaskDeriverInfo, TaskFunc
    from ..delivery.canvas import Canvas
    from .configuration import Outbox
    from .inbox_rows import Stored
    from .schemas import Schemas

logger = logging.getLogger(__name__)

_BIND = {"mapper": InboxRow.__mapper__}


def inside_transaction(
    task: TaskFunc, outbox: Outbox, info: TaskDeriverInfo
) -> TaskFunc:
    """Wrap a task inside its transaction: look for its row, run it, add its row.

    Args:
        task: The task, with the derivers inside the transaction.
        outbox: It knows the session of a request.
        info: The options of the task.
    """
    schemas = outbox.schemas

    def run(request: Request, /, *args: Any, **kwargs: Any) -> Any:
        current = request.current_task
        if current.request.id is None:  # another task calls it
            notify_before_task(request, current, args, kwargs)
            return task(request, *args, **kwargs)
        session = outbox.get_session(request)
        connection = session.connection(bind_arguments=_BIND)
        stored = _find(connection, current, schemas)
        if stored is not None:
            return _repeat(request, stored)
        notify_before_task(request, current, args, kwargs)
        is_test = request.tm.isDoomed()  # whose transaction is never to commit
        result = task(request, *args, **kwargs)
        check_finished(current.name, result)
        if (retry := getattr(current.request, RETRY, None)) is not None:
            raise retry
        if is_test or not request.tm.isDoomed():
            value = dump_result(current, info.original_func, result, info.options)
            stored = _store(current, value)
            # Last of all, as another process that runs the task would wait for it.
            session.flush()
            connection = session.connection(bind_arguments=_BIND)
            options = schemas.options(schemas.of_session(connection))
            add(connection, current, stored, options)
            mark_changed(session, request.tm)
        return result

    return run


def outside_transaction(
    task: TaskFunc, outbox: Outbox, max_deliveries: float
) -> TaskFunc:
    """Wrap a task outside its transaction: look for its row after an error.

    The row that the task adds can be there already, and so can a change that its row
    comes with. Then another process has run the task at the same time.

    Args:
        task: The task, with its transaction.
        outbox: It knows the session of a request.
        max_deliveries: How many processes may die of the task.
    """

    def run(request: Request, /, *args: Any, **kwargs: Any) -> Any:
        current = request.current_task
        if current.request.id is None:
            return task(request, *args, **kwargs)
        _fix_follower_ids(current)
        if "tm.active" in request.environ:
            return task(request, *args, **kwargs)
        redelivered = (current.request.delivery_info or {}).get("redelivered")
        if redelivered:
            engines = outbox.schemas.all(outbox.engine_of(request))
            count_redelivery(engines, current, max_deliveries)
        try:
            return task(request, *args, **kwargs)
        except Exception as error:
            stored = None
            # Without the database, the error of the task is the one to know.
            with suppress(Exception):
                engines = outbox.schemas.all(outbox.engine_of(request))
                if redelivered:
                    forget_redeliveries(engines[0], current)
                if not isinstance(error, TaskPredicate) and not is_left_open(request):
                    stored = find_anywhere(engines, current)
            if stored is None:
                raise
        return _repeat(request, stored)

    return run


def _fix_follower_ids(task: Task) -> None:
    """Give the tasks that Celery sends after this one ids that follow from its id.

    Celery would give the tasks of ``link`` and ``link_error`` new ids each time.
    """
    numbers = count()

    def next_id() -> str:
        return str(uuid5(NAMESPACE_OID, f"{task.request.id} {next(numbers)}"))

    def fixed(follower: Canvas) -> Canvas:
        follower = copy(follower)
        fix_ids(follower, next_id)
        return follower

    for name in "callbacks", "errbacks":
        if followers := getattr(task.request, name):
            setattr(task.request, name, [fixed(each) for each in followers])


def check_database(outbox: Outbox) -> None:
    """Find a missing table when a worker starts.

    Raises:
        OutboxTableMissing: The database has no table for the inbox.
    """
    engine = outbox.get_engine()
    try:
        for each in outbox.schemas.all(engine):
            check_inbox_table(each)
    except DBAPIError as error:
        logger.warning("The table of the inbox could not be looked for: %s", error.orig)
    if isinstance(engine.pool, QueuePool):
        engine.dispose()  # or processes that are forked would share a connection


def _find(connection: Connection, task: Task, schemas: Schemas) -> Stored | None:
    """Find the row of a task; tests come here without :func:`check_database`.

    Raises:
        OutboxTableMissing: The database has no table for the inbox.
    """
    schema = schemas.of_session(connection)
    try:
        return find(connection, task, schemas.options(schema))
    except DBAPIError:
        with suppress(SQLAlchemyError):
            check_inbox_table(schemas.at(connection.engine, schema))
        raise


def _repeat(request: Request, stored: Stored) -> Any:
    """Return the return value that a task had the first time."""
    task = request.current_task
    logger.info("%s[%s] has run before; it is not repeated", task.name, task.request.id)
    request.environ[REPEATED] = True
    content_type, result = stored
    if content_type is None:
        return None
    try:
        return loads(result, content_type, "utf-8", accept={content_type})
    except DecodeError as error:
        raise_limit(error)
        raise


def _store(task: Task, result: Any) -> Stored:
    """Serialize a return value as for the result backend, if anything asks for it.

    Raises:
        kombu.exceptions.EncodeError: The result serializer cannot hold the value.
    """
    request, backend = task.request, task.backend
    ignored = request.__dict__.get("ignore_result")
    if ignored is None:
        ignored = task.ignore_result
    has_reader = not (ignored or isinstance(backend, DisabledBackend))
    # A chord gets the value of a task that ignores its own.
    followers = request.callbacks or request.chain or request.chord
    if not (has_reader or followers):
        return None, None
    value = backend.prepare_value(result)
    try:
        content_type, _, body = dumps(value, backend.serializer)
    except EncodeError as error:
        raise_limit(error)
        raise
    return content_type, body.encode() if isinstance(body, str) else body
