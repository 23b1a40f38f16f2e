"""The checks of ``ptasks --check`` on an application that has been opened.

Nothing here connects to a broker, a result backend or a database.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import translate
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.backends.base import DisabledBackend
from celery.exceptions import QueueNotFound

from ..application import PyramidCelery
from ..configuration.load import report
from ..delivery.immediate import route
from ..exceptions import (
    AmbiguousTask,
    OutboxError,
    SettingError,
    TaskNotRegistered,
    UnknownSetting,
)
from ..loaders.merge import find_task
from .inbox_checks import check_inbox
from .listing import entry_of, list_tasks, next_run, own_tasks

if TYPE_CHECKING:
    from celery import Celery

#: The known options of tasks. Some of Celery's are not attributes of its class.
_OPTIONS = {
    *("autoretry_for", "dont_autoretry_for", "retry_backoff", "retry_backoff_max"),
    *("retry_jitter", "retry_kwargs", "queue", "routing_key", "exchange"),
    *("compression", "delivery_mode", "immediate", "mandatory"),
    *("inbox", "tm"),  # of this package
    *(name for name in dir(Task) if not name.startswith("_")),
}


def check_app(app: Celery, sections: Iterable[str]) -> None:
    """Report the problems of an application, in whose file are some sections."""
    app.loader.import_default_modules()
    own: tuple[Iterator[Exception], ...] = (
        _tasks(app),
        _schedule(app),
        _routes(app, sections),
        _queues(app),
        _results(app),
        _outbox(app),
        check_inbox(app),
    )
    for problem in chain(*own):
        report(problem)


def _tasks(app: Celery) -> Iterator[SettingError]:
    """Yield the options of tasks that Celery does not know."""
    for task in list_tasks(app):
        name, place = task["name"], task["registered"]
        found: list[SettingError] = []
        # An option that is near to no option of Celery may belong to a deriver.
        for option in sorted(task["options"].keys() - _OPTIONS):
            for near in get_close_matches(option, _OPTIONS, n=1, cutoff=0.75):
                problem = f"is an option of the task {name} that nobody knows."
                found.append(UnknownSetting(option, problem, near))
        for error in found:
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
            next_run(entry)
        except Exception as error:  # noqa: BLE001 a schedule that can never be met
            yield SettingError(
                "beat_schedule", f"has an entry {name!r} that cannot be used: {error}"
            )


def _routes(app: Celery, sections: Iterable[str]) -> Iterator[Exception]:
    known = set(sections)
    for name in _routed_names(app.conf.task_routes):
        section = f"celeryroute:{name}"
        key = f"[{section}]" if section in known else "task_routes"
        # As Celery reads names and patterns.
        if not isinstance(name, str) or "*" in name:
            pattern = re.compile(translate(name)) if isinstance(name, str) else name
            if not any(map(pattern.match, app.tasks)):
                yield SettingError(key, f"has a route for {name!r}: no task has it")
        elif name not in app.tasks:
            try:
                # A dotted name finds a function, but Celery looks for a route by the
                # name of the task.
                found = find_task(app, name)
                error: Exception = TaskNotRegistered(name, found.name)
            except (AmbiguousTask, TaskNotRegistered) as not_found:
                error = not_found
            yield SettingError(key, f"is a route for no task: {error}")


def _routed_names(routes: Any) -> Iterator[Any]:
    """Yield the names and patterns of ``task_routes``, in every form of it."""
    for each in routes if isinstance(routes, (list, tuple)) else (routes,):
        if isinstance(each, Mapping):
            yield from each
        elif isinstance(each, (list, tuple)):
            yield from (name for name, _ in each)


def _queues(app: Celery) -> Iterator[Exception]:
    for task in own_tasks(app):
        try:
            route(app, task.name)
        except QueueNotFound as error:
            yield SettingError(
                "task_queues", f"lacks the queue that {task.name} is sent to: {error}"
            )
        except Exception:  # noqa: BLE001, S112 a router may need a real call
            continue


def _results(app: Celery) -> Iterator[Exception]:
    """Yield the tasks that do not ignore their results, if no backend keeps results."""
    names = [task.name for task in own_tasks(app) if not task.ignore_result]
    if names and str(app.conf.result_backend).partition(":")[0] == "rpc":
        yield SettingError(
            "celery.result_backend",
            "= rpc:// sends a result to the process that deferred the task, and to no "
            "other: request.get_task_result() finds none. Use another result backend, "
            "such as redis://, or ignore the results: celery.task_ignore_result = true",
        )
    if app.conf.result_backend or app.conf.task_always_eager:
        return
    if not isinstance(app.backend, DisabledBackend):
        return
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
        yield SettingError(
            "celery.result_backend",
            f"is not set, so that request.get_task_result() finds no result of "
            f"{', '.join(names[:3])}{more}. Set it, or ignore the results: "
            "celery.task_ignore_result = true, or ignore_result=True for some.",
        )


def _outbox(app: Celery) -> Iterator[Exception]:
    """Yield an error if an application with an outbox has not declared its table.

    Only the database knows whether the table is there. But an application that declares
    the table has imported the module of the table.
    """
    if not isinstance(app, PyramidCelery) or not find_spec("sqlalchemy"):
        return
    found = app.registry.introspector.get("task deliveries", "outbox")
    if found is None or not found["default"]:
        return
    if "pyramid_tasks.contrib.outbox_table" not in sys.modules:
        yield OutboxError(
            "pyramid_tasks.delivery = outbox, but the application does not declare "
            "its table: call "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata) in the "
            "module of its models, so that its migrations and its tests make it, as "
            "celery ... outbox create does."
        )
