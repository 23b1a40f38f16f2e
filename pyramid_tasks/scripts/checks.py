"""The checks of ``ptasks --check`` on an application that has been opened.

Nothing here connects to a broker, a result backend or a database.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING

from celery.backends.base import DisabledBackend
from celery.exceptions import QueueNotFound
from pyramid.interfaces import INewRequest, IRequestFactory
from pyramid.request import Request

from ..application import PyramidCelery
from ..configuration.beat_schedule import check_schedule
from ..configuration.call_options import TASK_OPTIONS, misspelt_options
from ..configuration.load import report
from ..configuration.own_settings import schema_names
from ..configuration.schedules import check_entry
from ..delivery.immediate import route
from ..exceptions import (
    OutboxError,
    SettingError,
    TaskNotRegistered,
    UnknownSetting,
)
from ..loaders.merge import find_task
from ..outbox.configuration import get_outbox, no_session
from ..registry import get_tasks, tasks_with_inbox
from .inbox_checks import check_inbox
from .listing import entry_of, list_tasks, next_run, own_tasks
from .map_checks import check_annotations, check_routes
from .worker_checks import check_worker

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.registry import Registry


def check_app(app: Celery, sections: Iterable[str], config_uri: str) -> None:
    """Report the problems of an application.

    Args:
        app: The application.
        sections: The names of the sections in its file.
        config_uri: The file, for messages.
    """
    app.loader.import_default_modules()
    problems: Iterator[Exception] = chain(
        _tasks(app),
        check_worker(app),
        _schedule(app),
        check_routes(app, sections),
        check_annotations(app),
        _queues(app),
        _results(app),
        _outbox(app),
        check_inbox(app),
    )
    for problem in problems:
        if isinstance(problem, SettingError) and not problem.source:
            _add_source(problem, app, config_uri)
        report(problem)


def _add_source(problem: SettingError, app: Celery, config_uri: str) -> None:
    """Say where a setting stands: in the section of the worker, or in the file."""
    problem.source = config_uri
    if isinstance(app, PyramidCelery):
        tasks = get_tasks(app.registry)
        name = problem.key.removeprefix("celery.")
        if tasks.section and name in tasks.section_settings:
            problem.key, problem.source = name, tasks.section


def _tasks(app: Celery) -> Iterator[SettingError]:
    """Yield the options of tasks that Celery does not know."""
    for task in list_tasks(app):
        name, place = task["name"], task["registered"]
        # An option that is near to no option of Celery may belong to a deriver.
        for option, near in misspelt_options(sorted(task["options"]), TASK_OPTIONS):
            problem = f"is an option of the task {name} that nobody knows."
            error = UnknownSetting(option, problem, near)
            error.source = place and f"{place['file']}:{place['line']}"
            yield error


def _schedule(app: Celery) -> Iterator[Exception]:
    for name, value in app.conf.beat_schedule.items():
        try:
            entry = entry_of(app, name, value)
        except SettingError as error:
            yield error
            continue
        try:
            task = find_task(app, entry.task)
            if task.name != entry.task:
                raise TaskNotRegistered(entry.task, task.name)
            check_schedule(entry.schedule)
            args, kwargs = tuple(entry.args or ()), dict(entry.kwargs or {})
            check_entry(task, args, kwargs, entry.options or {})
            next_run(entry)
        except Exception as error:  # noqa: BLE001 a schedule that can never be met
            yield SettingError(
                "celery.beat_schedule",
                f"has an entry {name!r} that cannot be used: {error}",
            )


def _queues(app: Celery) -> Iterator[Exception]:
    for task in own_tasks(app):
        try:
            route(app, task.name)
        except QueueNotFound as error:
            yield SettingError(
                "celery.task_queues",
                f"lacks the queue that {task.name} is sent to: {error}",
            )
        except Exception:  # noqa: BLE001, S112 a router may need a real call
            continue


def _session(registry: Registry) -> Iterator[OutboxError]:
    """Yield an error if no request has the session that is to store tasks."""
    name = get_outbox(registry).session
    factory = registry.queryUtility(IRequestFactory, default=Request)
    if (
        callable(name)
        or not isinstance(factory, type)
        or hasattr(factory, name)
        or hasattr(factory, "__getattr__")
        or registry.introspector.get("request extensions", name)
        # Such a subscriber may set it on each request.
        or registry.adapters.subscriptions((INewRequest,), None)
    ):
        return
    yield no_session(name)


def _results(app: Celery) -> Iterator[Exception]:
    """Yield the tasks that do not ignore their results, if no backend keeps results."""
    names = [task.name for task in own_tasks(app) if not task.ignore_result]
    if not names:
        return
    conf = app.conf
    if str(conf.result_backend).partition(":")[0] == "rpc":
        yield SettingError(
            "celery.result_backend",
            "= rpc:// sends a result to the process that deferred the task, and to no "
            "other: request.get_task_result() finds none. Use another result backend, "
            "such as redis://, or ignore the results: celery.task_ignore_result = true",
        )
    elif not (conf.result_backend or conf.task_always_eager) and isinstance(
        app.backend, DisabledBackend
    ):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
        yield SettingError(
            "celery.result_backend",
            f"is not set, so that request.get_task_result() finds no result of "
            f"{', '.join(names[:3])}{more}. Set it, or ignore the results: "
            "celery.task_ignore_result = true, or ignore_result=True for some.",
        )


def _outbox(app: Celery) -> Iterator[Exception]:
    """Yield an error if an application with an outbox lacks a session or the table.

    Only the database knows whether the table is there. But an application that declares
    the table has imported the module of the table.
    """
    if not isinstance(app, PyramidCelery) or not find_spec("sqlalchemy"):
        return
    found = app.registry.introspector.get("task deliveries", "outbox")
    is_default = found is not None and found["default"]
    if is_default or any(tasks_with_inbox(app)):
        yield from _session(app.registry)
    if not is_default:
        return
    if "pyramid_tasks.contrib.outbox_table" not in sys.modules:
        yield OutboxError(
            "pyramid_tasks.delivery = outbox, but the application does not declare "
            "its table: call "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata) in the "
            "module of its models, so that its migrations and its tests make it, as "
            "celery ... outbox create does."
        )
        return
    with suppress(SettingError):  # which another check tells
        yield from _outbox_schema(schema_names(app.registry.settings))


def _outbox_schema(names: Collection[str]) -> Iterator[SettingError]:
    """Yield an error if the tables are declared in other schemas than the setting."""
    from ..outbox.table import declared_schemas

    declared = declared_schemas()
    # Of several schemas, the search_path or the schema_translate_map chooses one.
    if declared and declared.isdisjoint(names if len(names) == 1 else {*names, None}):
        set_to = f"= {' '.join(names)}" if names else "is not set"
        places = " and in ".join(sorted(each or "no schema" for each in declared))
        yield SettingError(
            "pyramid_tasks.outbox_schema",
            f"{set_to}, but the application declares the tables of the outbox in "
            f"{places}. Give outbox_table() the schema of the setting, and none if the "
            "setting has several.",
        )
