"""The checks of ``ptasks --check`` on the outbox, and on tasks with an inbox."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import INewRequest, IRequestFactory
from pyramid.request import Request

from ..application import PyramidCelery
from ..configuration.own_settings import number_setting, schema_names
from ..exceptions import OutboxError, SettingError
from ..outbox.configuration import get_outbox, no_session
from ..registry import get_tasks, tasks_with_inbox
from .listing import entry_of

if TYPE_CHECKING:
    from celery import Celery, Task
    from pyramid.registry import Registry

# Methods that defer a task, with a delivery of the application and without one.
_DEFER = {"defer_task", "defer_task_with_options", "delay_task", "defer_tasks"} | {
    "defer_canvas"
}
_SEND = {"delay", "apply_async"}

_WHY_NOT = {
    "immediate": "is sent also if the transaction of {0} is rolled back, and again if "
    "{0} runs again",
    "commit": "is lost if the process dies between the commit and the sending, as {0} "
    "does not run again",
}


def check_outbox(app: Celery) -> Iterator[Exception]:
    """Yield an error if an application with an outbox lacks a session or the table."""
    if not isinstance(app, PyramidCelery) or not find_spec("sqlalchemy"):
        return
    found = app.registry.introspector.get("task deliveries", "outbox")
    is_default = found is not None and found["default"]
    if is_default or any(tasks_with_inbox(app)):
        yield from _session(app.registry)
    if is_default:
        yield from _undeclared("pyramid_tasks.delivery = outbox")
        with suppress(SettingError):  # which another check tells
            yield from _outbox_schema(schema_names(app.registry.settings))


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


def _undeclared(user: str) -> Iterator[OutboxError]:
    """Yield an error if the application does not declare the tables.

    Only the database knows whether a table is there. But an application that declares
    the tables has imported their module.

    Args:
        user: The sentence, as far as it says what needs a table.
    """
    if "pyramid_tasks.contrib.outbox_table" not in sys.modules:
        yield OutboxError(
            f"{user}, but the application does not declare its table: call "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata) in the "
            "module of its models, so that its migrations and its tests make it, as "
            "celery ... outbox create does."
        )


def _outbox_schema(names: Collection[str]) -> Iterator[SettingError]:
    """Yield an error if the tables are declared in other schemas than the setting."""
    from ..outbox.tables import declared_schemas

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


def check_inbox(app: Celery) -> Iterator[Exception]:
    """Yield the problems of the tasks that have an inbox."""
    tasks = sorted(tasks_with_inbox(app), key=lambda task: str(task.name))
    if not tasks or not isinstance(app, PyramidCelery):
        return
    delivery = get_tasks(app.registry).delivery
    if delivery != "outbox":
        yield from _undeclared(f"The task {tasks[0].name} has an inbox")
    for task in tasks:
        for used in sorted(set(_deliveries(app, task, delivery))):
            if why_not := _WHY_NOT.get(used):
                yield SettingError(
                    "pyramid_tasks.delivery",
                    f"= {used} for a task that {task.name} defers: such a task "
                    f"{why_not.format(task.name)}. Take outbox.",
                )
    yield from _times(app, {task.name: task for task in tasks})


def _deliveries(app: PyramidCelery, task: Task, default: str) -> Iterator[str]:
    """Yield the deliveries that the source of a task names or implies."""
    found = app.registry.introspector.get("tasks", task.name)
    try:
        tree = ast.parse(dedent(inspect.getsource(found["func"])))
    except (OSError, TypeError, SyntaxError):  # there is no source, or no function
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in _SEND:
                yield "immediate"
            elif node.func.attr in _DEFER:
                named = [each.value for each in node.keywords if each.arg == "delivery"]
                constants = [each for each in named if isinstance(each, ast.Constant)]
                yield str(constants[0].value) if constants else default


def _times(app: PyramidCelery, tasks: Mapping[str, Task]) -> Iterator[SettingError]:
    """Yield the times that a message can be on its way, if rows are kept for less."""
    keep = number_setting(app.registry.settings, "inbox_keep")
    options = app.conf.broker_transport_options or {}
    times = [("visibility_timeout of the broker", options.get("visibility_timeout"))]
    times += [
        (f"{name} of the task {task.name}", getattr(task, name, None))
        for task in tasks.values()
        for name in ("expires", "countdown", "default_retry_delay")
    ]
    for name, value in app.conf.beat_schedule.items():
        with suppress(SettingError):  # which another check tells
            entry = entry_of(app, name, value)
            if entry.task in tasks:
                times += [
                    (f"{key} of the schedule {name}", (entry.options or {}).get(key))
                    for key in ("expires", "countdown", "eta")
                ]
    for what, time in times:
        seconds = _seconds(time)
        if seconds > keep:
            yield SettingError(
                "pyramid_tasks.inbox_keep",
                f"= {keep:g} is less than the {what} ({seconds:g} s). A message that "
                "arrives when its row is deleted changes the database again.",
            )


def _seconds(time: Any) -> float:
    if isinstance(time, datetime):
        time = time.astimezone(UTC) - datetime.now(UTC)
    if isinstance(time, timedelta):
        return time.total_seconds()
    return time if isinstance(time, (int, float)) else 0.0
