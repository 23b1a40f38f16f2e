"""Delivery by outbox: a deferred task is a row, committed with the application's data.

Choose it in the settings, beside ``pyramid_tasks.contrib.pyramid_tm``::

    pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm
    pyramid_tasks.delivery = outbox

or call ``config.include("pyramid_tasks.contrib.outbox")``, which does both. Needs the
extra ``pyramid-tasks[outbox]``, a session that is part of the transaction as
``zope.sqlalchemy`` makes it, the table (``celery ... outbox create``), and a relay that
runs (``celery ... outbox run``).

After the commit the process that deferred the task sends it and deletes the row. What
it could not send, because it died or the broker was down, the relay sends. A task can
be sent twice, with the same id.

Settings:

``pyramid_tasks.outbox_lease``
    How many seconds a relay leaves a row to the process that wrote it; default 5.
``pyramid_tasks.outbox_max_attempts``
    How often a message may be refused for its content, such as a task that does not
    exist, before it is set aside; default 5.
``pyramid_tasks.delivery_timeout``
    How many seconds a request waits for the broker after its commit; default 2.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps
from pyramid.exceptions import ConfigurationError
from pyramid.scripting import prepare

from ..delivery import deliver_immediately
from ..exceptions import OutboxError, OutboxTableMissing
from ..registry import get_tasks
from .message import Message, PendingResult
from .outgoing import Outgoing, in_transaction

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from pyramid.request import Request
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from .outbox_table import OutboxMessage

logger = logging.getLogger(__name__)

_KEY = "pyramid_tasks.outbox"


def includeme(config: Configurator) -> None:
    """Run tasks in transactions, and make delivery by outbox the default."""
    config.include("pyramid_tasks.contrib.pyramid_tm")
    get_tasks(config.registry).delivery = "outbox"


def add_outbox(config: Configurator) -> None:
    """Make delivery by outbox known. SQLAlchemy is needed where it is used."""
    registry = config.registry
    get_tasks(registry).deliveries["outbox"] = deliver_to_outbox
    registry[_KEY] = Outbox(registry)
    config.add_directive("set_task_outbox", set_task_outbox)

    def check() -> None:
        if get_tasks(registry).delivery == "outbox" and not find_spec("sqlalchemy"):
            raise ConfigurationError(
                "pyramid_tasks.delivery = outbox needs SQLAlchemy: install "
                "pyramid-tasks[outbox]."
            )

    config.action((_KEY, "check"), check)


def set_task_outbox(
    config: Configurator,
    session: str | Callable[[Request], Session] = "dbsession",
    engine: str | Engine | Callable[[Registry], Engine] | None = None,
) -> None:
    """Say where the outbox is: a directive, ``config.set_task_outbox(...)``.

    Args:
        session: The SQLAlchemy session of a request that is part of its transaction:
            the name of an attribute of the request, or a callable, or its dotted
            name, that returns it for a request.
        engine: What the relay connects with: an engine, or a callable, or its dotted
            name, that returns it for the registry. By default, the engine that the
            session of a request has.
    """
    if not isinstance(session, str) or "." in session or ":" in session:
        session = config.maybe_dotted(session)
    engine = config.maybe_dotted(engine)
    intr = config.introspectable(
        "pyramid_tasks outbox", None, "the outbox of tasks", "pyramid_tasks outbox"
    )
    intr.update(session=session, engine=engine)

    def register() -> None:
        outbox = get_outbox(config.registry)
        outbox.session = session
        outbox.engine = engine

    config.action((_KEY, "set"), register, introspectables=(intr,))


def get_outbox(registry: Registry) -> Outbox:
    """Return the outbox of an application.

    Raises:
        OutboxError: It has none.
    """
    try:
        outbox: Outbox = registry[_KEY]
    except KeyError:
        raise OutboxError(
            "The application has no outbox: include pyramid_tasks.contrib.pyramid_tm "
            "in it, and set pyramid_tasks.delivery = outbox."
        ) from None
    return outbox


class Outbox:
    """Where the outbox of an application is, and how it is used.

    Attributes:
        session: As in :func:`set_task_outbox`.
        engine: As in :func:`set_task_outbox`.
        checked: Whether the table was found.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.session: Any = "dbsession"
        self.engine: Any = None
        self.checked = False

    def number(self, name: str, default: float) -> float:
        """Return the number that a setting has."""
        key = f"pyramid_tasks.{name}"
        value = self.registry.settings.get(key, default)
        try:
            return float(value)
        except ValueError:
            raise ConfigurationError(f"{key} = {value} is not a number.") from None

    def get_session(self, request: Request) -> Session:
        """Return the session of a request."""
        if callable(self.session):
            session: Session = self.session(request)
            return session
        try:
            session = getattr(request, self.session)
        except AttributeError:
            raise OutboxError(
                f"Delivery by outbox needs the SQLAlchemy session of the request, and "
                f"there is no request.{self.session}. Name it with "
                "config.set_task_outbox(session=...)."
            ) from None
        return session

    def get_engine(self) -> Engine:
        """Return the engine for what is no request."""
        if self.engine is not None:
            engine: Engine = (
                self.engine(self.registry) if callable(self.engine) else self.engine
            )
            return engine
        with prepare(registry=self.registry) as env:
            return engine_of(self.get_session(env["request"]))

    def check_table(self, session: Session) -> None:
        """Find a missing table before the commit does; once in a process.

        Raises:
            OutboxTableMissing: It is missing.
        """
        if self.checked:
            return
        from sqlalchemy import inspect

        from .outbox_table import OutboxMessage

        connection = session.connection(bind_arguments={"mapper": OutboxMessage})
        name = OutboxMessage.__tablename__
        if not inspect(connection).has_table(name):
            raise OutboxTableMissing(name, str(connection.engine.url))
        self.checked = True


def engine_of(session: Session) -> Engine:
    """Return the engine of a session, which may be bound to a connection of it."""
    from .outbox_table import OutboxMessage

    return session.get_bind(OutboxMessage).engine


def deliver_to_outbox(
    request: Request,
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> AsyncResult:
    """Store a task in the transaction of the request, or send it at once without one.

    Raises:
        TypeError: The arguments are not those of the task, or something of the call
            cannot be stored as JSON.
        OutboxError: There is no session, or no table.
    """
    if not in_transaction(request):
        return deliver_immediately(request, task, args, kwargs, options)
    from .outbox_table import OutboxMessage, database_time

    outbox = get_outbox(request.registry)
    session = outbox.get_session(request)
    outbox.check_table(session)
    message = Message(request, task, args, kwargs, options)
    row = OutboxMessage(
        task=task.name,
        task_id=message.options["task_id"],
        message=_as_json(message),
        created=database_time(),
        not_before=database_time() + outbox.number("outbox_lease", 5),
    )
    # Through the session, so that zope.sqlalchemy sees a change to commit.
    session.add(row)
    _InOutbox.of(request).messages.append((session, row, message.result))
    return message.result


def _as_json(message: Message) -> str:
    options = dict(message.options)
    for key in ("eta", "expires"):
        if hasattr(options.get(key), "isoformat"):
            options[key] = options[key].isoformat()
    # As Celery does when it sends, which a relay does outside the task.
    app = message.task.app
    if parent := app.current_worker_task:
        options.setdefault("root_id", parent.request.root_id or parent.request.id)
        options.setdefault("parent_id", parent.request.id)
    content = {"args": message.args, "kwargs": message.kwargs, "options": options}
    try:
        body: str = dumps(content)
    except Exception as error:
        raise TypeError(
            f"{message.task.name} cannot be delivered by outbox, which stores JSON: "
            f"{error}"
        ) from error
    return body


class _InOutbox(Outgoing[tuple["Session", "OutboxMessage", PendingResult]]):
    def prepare(
        self, messages: list[tuple[Session, OutboxMessage, PendingResult]]
    ) -> None:
        # Flushed by now, and about to be detached from the session.
        self.engine = engine_of(messages[0][0])
        self.ids = [row.id for _, row, _ in messages if row.id is not None]

    def deliver(
        self, messages: list[tuple[Session, OutboxMessage, PendingResult]]
    ) -> None:
        """Send at once; what cannot be sent now, a relay will."""
        from .outbox_rows import send_rows

        outbox = get_outbox(self.registry)
        for _, _, result in messages:
            result.sent = True
        try:
            timeout = outbox.number("delivery_timeout", 2)
            sending = send_rows(
                get_tasks(self.registry).app,
                self.engine,
                ids=self.ids,
                timeout=timeout,
                max_attempts=int(outbox.number("outbox_max_attempts", 5)),
                deadline=time.monotonic() + timeout,
            )
        except Exception:
            logger.exception("Tasks that have been committed are left to the relay")
        else:
            if sending.broker_down is not None:
                logger.warning(
                    "The broker is down; tasks that have been committed are left to "
                    "the relay: %s",
                    sending.broker_down,
                )
