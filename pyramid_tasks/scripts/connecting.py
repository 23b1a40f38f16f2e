"""``ptasks --check --connect``: asks the servers of an application, all at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from celery.backends.base import DisabledBackend
from celery.utils import uuid
from pyramid.scripting import prepare

from .._celery import new_backend
from ..application import PyramidCelery
from ..configuration.addresses import shown, without_secrets
from ..delivery.result_backends import limited_backend
from ..outbox.configuration import get_outbox
from ..registry import get_tasks, tasks_with_inbox
from .broker_rights import ask_broker, broker_remedy

if TYPE_CHECKING:
    from celery import Celery
    from sqlalchemy import Engine

#: Seconds that one wait for a broker or a result backend may take.
WAIT = 3.0
#: Seconds that a server has to answer everything.
BOUND = 10.0

_SILENT = (
    f"does not answer within {BOUND:g} s. Is the server frozen, or a firewall in "
    "between?"
)
_RESULTS = (
    "Is celery.result_backend right, does the server run, and may its user write, read "
    "and delete?"
)

Answer = dict[str, Any]


@dataclass
class _Question:
    """A question to a server, asked by a thread of its own.

    Attributes:
        server: The purpose of the server, and its address without its password.
        ask: A function that says what the server answered, or raises an error.
        remedy: A function that says what to do about an error.
        secret: The address with its password.
        answer: The ``message`` of the server, and whether it is ``ok``.
    """

    server: str
    ask: Callable[[], str]
    remedy: Callable[[Exception], str]
    secret: object = None
    answer: Answer = field(default_factory=lambda: {"message": _SILENT, "ok": False})

    def run(self) -> None:
        try:
            self.answer = {"message": self.ask(), "ok": True}
        except Exception as error:  # noqa: BLE001 the error of any client
            reason = getattr(error, "orig", None) or error
            kind = type(reason).__name__
            words = " ".join(str(reason).split()) or kind
            if self.secret:
                words = without_secrets(words, self.secret, kind)
            words += "" if words.endswith((".", "?", "!")) else "."
            message = f"fails: {words} {self.remedy(error)}".rstrip()
            self.answer = {"message": message, "ok": False}


def connect(app: Celery) -> list[Answer]:
    """Ask the servers of an application for what its processes need of them.

    Nothing that is written stays.

    Returns:
        For each server a dictionary: ``server`` is what it is for and its address,
        ``message`` what it answered, and ``ok`` whether that is enough.
    """
    if not isinstance(app, PyramidCelery):
        message = "does not come from pyramid_tasks, so its servers are not asked."
        return [{"server": "The Celery application", "message": message, "ok": False}]
    questions = list(_questions(app))
    # No setting limits every wait of every client, so a frozen one is left behind.
    threads = [threading.Thread(target=each.run, daemon=True) for each in questions]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + BOUND
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return [{"server": each.server, **each.answer} for each in questions]


def _questions(app: PyramidCelery) -> Iterator[_Question]:
    conf = app.conf
    if not conf.task_always_eager:
        broker = conf.broker_write_url or conf.broker_transport
        yield _Question(
            f"The broker {shown(broker)}",
            lambda: ask_broker(app, WAIT),
            broker_remedy,
            broker,
        )
        results = str(conf.result_backend or "")
        # Results by rpc:// go through the broker.
        if results and not results.startswith("rpc"):
            yield _Question(
                f"The result backend {shown(results)}",
                lambda: _ask_results(app),
                lambda _: _RESULTS,
                results,
            )
    if find_spec("sqlalchemy"):
        yield from _databases(app)


def _ask_results(app: PyramidCelery) -> str:
    """Store a result, read it, and forget it."""
    backend = new_backend(app)
    if isinstance(backend, DisabledBackend):
        return "keeps no results."
    backend = limited_backend(app, backend, WAIT)
    task_id = uuid()
    backend.store_result(task_id, None, "SUCCESS")
    try:
        state = backend.get_state(task_id)
    finally:
        backend.forget(task_id)
    if state != "SUCCESS":
        raise LookupError("A result that was stored is not found")
    return "answers, and keeps results."


def _databases(app: PyramidCelery) -> Iterator[_Question]:
    """Yield a question for the requests' database, and for the relay's database.

    Each schema with tables is a question of its own.
    """
    uses_outbox = get_tasks(app.registry).delivery == "outbox"
    has_inbox = any(tasks_with_inbox(app))
    if not uses_outbox and not has_inbox:
        return
    from ..outbox.tables import database_name, schema_of
    from .database_rights import ask_database, database_remedy

    try:
        engines = _engines(app)
    except Exception as error:  # noqa: BLE001 the application's own, of any kind
        yield _Question(
            "The database of the outbox", partial(_raise, error), lambda _: ""
        )
        return
    for engine in engines:
        schema = schema_of(engine)
        yield _Question(
            f"The {f'schema {schema} of the ' if schema else ''}database "
            f"{database_name(engine)}",
            partial(ask_database, engine, outbox=uses_outbox, inbox=has_inbox),
            partial(database_remedy, engine),
            engine.url.render_as_string(hide_password=False),
        )


def _engines(app: PyramidCelery) -> list[Engine]:
    outbox = get_outbox(app.registry)
    with prepare(registry=app.registry) as env:
        engines = [outbox.engine_of(env["request"])]
    if outbox.engine is not None:
        engines.append(outbox.get_engine())
    distinct = {engine.url: engine for engine in engines}.values()
    return [each for engine in distinct for each in outbox.schemas.all(engine)]


def _raise(error: Exception) -> NoReturn:
    raise error
