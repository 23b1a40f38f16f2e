"""The outbox of an application: its session, its engine, its settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded
from pyramid.scripting import prepare

from ..configuration.functions import check_callback
from ..configuration.importable import maybe_dotted
from ..configuration.load import reporting_directive
from ..configuration.own_settings import SEND_KEY, number_setting, schema_names
from ..delivery.publisher import Publisher
from ..exceptions import OutboxError
from ..registry import get_tasks, relate
from .uwsgi import has_threads, is_master

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from pyramid.request import Request
    from sqlalchemy import Connection, Dialect, Engine
    from sqlalchemy.orm import Session

    from .schemas import Schemas
    from .sender import Sender

logger = logging.getLogger(__name__)

#: The key of the outbox on the registry.
KEY = "pyramid_tasks.outbox"


@reporting_directive
def set_task_outbox(
    config: Configurator,
    session: str | Callable[[Request], Session] = "dbsession",
    engine: str | Engine | Callable[[Registry], Engine] | None = None,
) -> None:
    """Name the database of the outbox: a directive, ``config.set_task_outbox(...)``.

    Args:
        session: The SQLAlchemy session of a request, which is part of its transaction:
            the name of an attribute of the request, or a callable (or its dotted name)
            that takes a request and returns the session.
        engine: The engine that the relay connects with, or a callable (or its dotted
            name) that takes the registry and returns an engine. By default, the relay
            takes the engine of the session of a request.

    Raises:
        TaskError: A dotted name leads nowhere, or a callable cannot be called so.
    """
    if not (isinstance(session, str) and session.isidentifier()):
        session = maybe_dotted(config, session)
    engine = maybe_dotted(config, engine)
    parts = ("session", session, "request"), ("engine", engine, "registry")
    for name, given, argument in parts:
        if callable(given):
            check_callback(f"The {name} of config.set_task_outbox()", given, argument)
    intr = config.introspectable(
        "pyramid_tasks outbox", None, "the outbox of tasks", "pyramid_tasks outbox"
    )
    intr.update(session=session, engine=engine)

    def register() -> None:
        outbox = get_outbox(config.registry)
        outbox.session = session
        outbox.engine = engine
        relate(intr, config.registry, "task deliveries", "outbox")

    config.action((KEY, "set"), register, introspectables=(intr,))


def get_outbox(registry: Registry) -> Outbox:
    """Return the outbox of an application.

    Raises:
        OutboxError: The application has no outbox.
    """
    try:
        outbox: Outbox = registry[KEY]
    except KeyError:
        raise OutboxError(
            "The application has no outbox: include pyramid_tasks.contrib.pyramid_tm "
            "in it, and set pyramid_tasks.delivery = outbox."
        ) from None
    return outbox


class Outbox:
    """The outbox of an application, as it is configured and as a process uses it.

    Attributes:
        session: As in :func:`set_task_outbox`.
        engine: As in :func:`set_task_outbox`.
        checked: In which schemas this process has found the table.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.session: Any = "dbsession"
        self.engine: Any = None
        self.checked: set[str | None] = set()
        self._relay_checked: set[tuple[Dialect, str | None]] = set()
        self._senders: dict[int, Sender] = {}

    def number(self, name: str) -> float:
        """Return a setting of this package that is a number.

        Raises:
            SettingError: The value is not a number.
        """
        return number_setting(self.registry.settings, name)

    @cached_property
    def schemas(self) -> Schemas:
        """Where the tables are: the setting ``pyramid_tasks.outbox_schema``."""
        from .schemas import Schemas

        return Schemas(schema_names(self.registry.settings))

    @cached_property
    def lease(self) -> float:
        """For how many seconds a row belongs to the process that wrote it."""
        return 0.0 if self.sent_by == "relay" else self.number("outbox_lease")

    @cached_property
    def sent_by(self) -> str:
        """Who sends committed rows: the setting ``pyramid_tasks.outbox_send``."""
        sent_by: str = self.registry.settings.get(SEND_KEY, "thread")
        if sent_by == "thread" and not has_threads():
            logger.error(
                "uWSGI runs without threads, so each request sends its tasks itself. "
                "Set enable-threads in uWSGI, or %s = request.",
                SEND_KEY,
            )
            return "request"
        return sent_by

    def sends_in_thread(self, engine: Engine) -> bool:
        """Whether a thread sends the rows of a database."""
        is_eager = get_tasks(self.registry).app.conf.task_always_eager
        if self.sent_by != "thread" or is_eager or is_master():
            return False
        # A database in memory is not for a second thread.
        in_memory = engine.url.database in {None, "", ":memory:"}
        return engine.dialect.name != "sqlite" or not in_memory

    @property
    def sender(self) -> Sender:
        """The sender of the rows that this process has committed."""
        # Not made at the fork: gunicorn replaces threads by greenlets later.
        process = os.getpid()
        if process not in self._senders:
            # The first one, if another thread makes one as well.
            self._senders.setdefault(process, self._new_sender())
        return self._senders[process]

    def _new_sender(self) -> Sender:
        from .sender import Sender

        app = get_tasks(self.registry).app
        publisher = Publisher(app, self.number("delivery_timeout"))
        max_attempts = int(self.number("outbox_max_attempts"))
        return Sender(publisher, self.lease, max_attempts)

    def get_session(self, request: Request) -> Session:
        """Return the session of a request.

        Raises:
            OutboxError: The request has no session.
        """
        from sqlalchemy.orm import Session, scoped_session

        from .tables import as_a

        found: Any
        if callable(self.session):
            found = self.session(request)
        else:
            try:
                found = getattr(request, self.session)
            except AttributeError:
                if not (prop := getattr(type(request), self.session, None)):
                    raise no_session(self.session) from None
                # WebOb hides an AttributeError of the property behind its own.
                found = prop.__get__(request)
        found = found() if isinstance(found, scoped_session) else found
        return as_a(Session, found, "session")

    def engine_of(self, request: Request) -> Engine:
        """Return the engine of the session of a request.

        Raises:
            OutboxError: The request has no session.
        """
        from .models import OutboxMessage

        # A session may be bound to one connection.
        return self.get_session(request).get_bind(OutboxMessage.__mapper__).engine

    def get_engine(self) -> Engine:
        """Return the engine for a process that serves no request."""
        from sqlalchemy import Engine

        from .tables import as_a

        if self.engine is None:
            with prepare(registry=self.registry) as env:
                return self.engine_of(env["request"])
        found = self.engine(self.registry) if callable(self.engine) else self.engine
        return as_a(Engine, found, "engine")

    def check_table(self, connection: Connection) -> None:
        """Find a missing table before the commit would; once in a process.

        Raises:
            OutboxTableMissing: The database has no table for the outbox.
        """
        from .tables import check_table

        schema = self.schemas.of_session(connection)
        if schema not in self.checked:
            check_table(connection, schema)
            self.checked.add(schema)

    def check_schema(self, engine: Engine, schema: str | None) -> None:
        """Log an error if an engine committed rows to a schema where no relay looks.

        Raises:
            SoftTimeLimitExceeded: The time of the task that defers is over.
        """
        if (engine.dialect, schema) not in self._relay_checked:
            try:
                relay = self.get_engine() if self.engine is not None else engine
                self.schemas.check(relay, schema)
            except SoftTimeLimitExceeded:
                raise
            except Exception as error:  # noqa: BLE001 the commit has succeeded
                logger.debug(
                    "Whether a relay looks in %s is unknown: %s", schema, error
                )
            else:
                self._relay_checked.add((engine.dialect, schema))


def no_session(name: str) -> OutboxError:
    """Return the error about a request that lacks the session of the outbox."""
    return OutboxError(
        "The outbox and the inbox need the SQLAlchemy session of the request, and "
        f"there is no request.{name}. Make it with config.add_request_method({name}, "
        "reify=True), or name another one: config.set_task_outbox(session=...)."
    )
