"""The checks of ``ptasks --check`` on tasks that have an inbox."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from ..application import PyramidCelery
from ..configuration.own_settings import number_setting
from ..exceptions import OutboxError, SettingError
from ..registry import get_tasks, tasks_with_inbox
from .listing import entry_of

if TYPE_CHECKING:
    from celery import Celery, Task

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


def check_inbox(app: Celery) -> Iterator[Exception]:
    """Yield the problems of the tasks that have an inbox."""
    tasks = sorted(tasks_with_inbox(app), key=lambda task: str(task.name))
    if not tasks or not isinstance(app, PyramidCelery):
        return
    delivery = get_tasks(app.registry).delivery
    # As for the outbox, only the database knows whether the table is there.
    declares = "pyramid_tasks.contrib.outbox_table" in sys.modules
    if delivery != "outbox" and not declares:
        yield OutboxError(
            f"The task {tasks[0].name} has an inbox, but the application does not "
            "declare its table: call "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata) in the "
            "module of its models, so that its migrations and its tests make it, as "
            "celery ... outbox create does."
        )
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
    tree: ast.AST = ast.Module([], [])
    with suppress(OSError, TypeError, SyntaxError):
        tree = ast.parse(dedent(inspect.getsource(found["func"])))
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
