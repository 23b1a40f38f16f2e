"""The tasks and the schedule of an application, from its introspectables."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.app.defaults import DEFAULTS
from celery.beat import ScheduleEntry
from celery.schedules import BaseSchedule, crontab, schedule
from pyramid.registry import Introspectable, Introspector

from ..application import PyramidCelery
from ..delivery.immediate import route
from ..exceptions import SettingError

if TYPE_CHECKING:
    from celery import Celery
    from kombu.entity import Queue


def list_tasks(app: Celery) -> list[dict[str, Any]]:
    """Return a description of each task but Celery's own, in the order of names."""
    return [_describe_task(app, task) for task in own_tasks(app)]


def own_tasks(app: Celery) -> list[Task]:
    """Return the tasks but Celery's own, in the order of names."""
    return [
        task
        for name, task in sorted(app.tasks.items())
        if not name.startswith("celery.")
    ]


def _describe_task(app: Celery, task: Task) -> dict[str, Any]:
    # A shared task has no introspectable, and introspection may be switched off.
    found = _introspector(app).get("tasks", task.name) or Introspectable(
        "tasks", task.name, task.name, "task"
    )
    queue = queue_of(app, task)
    options = {**found.get("options", {}), "bind": found.get("bind")}
    return {
        "name": task.name,
        "function": describe(found.get("func", getattr(task, "__wrapped__", task.run))),
        "queue": None if queue is None else str(queue.name),
        "derivers": found.get("derivers", []),
        "options": _changed(app, task, options),
        "registered": _file_and_line(found),
    }


def queue_of(app: Celery, task: Task) -> Queue | None:
    """Return the queue that a task is sent to, or ``None`` if only a call tells."""
    try:
        queue: Queue = route(app, task.name)["queue"]
    except Exception:  # noqa: BLE001 a router may need a real call
        return None
    return queue


def list_schedule(app: Celery) -> list[dict[str, Any]]:
    """Return a description of each entry of the schedule, in the order of names."""
    return [
        _describe_entry(app, entry_of(app, name, entry))
        for name, entry in sorted(app.conf.beat_schedule.items())
    ]


def entry_of(app: Celery, name: str, entry: Any) -> ScheduleEntry:
    """Return an entry of ``beat_schedule`` as beat reads it.

    Args:
        app: The Celery application.
        name: The name of the entry.
        entry: The value in ``beat_schedule``.

    Raises:
        SettingError: Beat cannot read the entry.
    """
    try:
        if isinstance(entry, ScheduleEntry):
            entry.app = app
        else:
            if isinstance(entry.get("schedule"), str):
                raise TypeError("a string is not a schedule; write [celerybeat:NAME]")
            entry = ScheduleEntry(**{**entry, "name": name, "app": app})
        if not isinstance(entry.schedule, BaseSchedule):
            raise TypeError(f"{entry.schedule!r} is not a schedule")
    except (AttributeError, TypeError) as error:
        raise SettingError(
            "celery.beat_schedule",
            f"has an entry {name!r} that cannot be read: {error}",
        ) from error
    return entry


def next_run(entry: ScheduleEntry) -> datetime:
    """Return the time at which a beat that starts now first queues a task."""
    now = entry.schedule.now()
    found: datetime = now + entry.schedule.remaining_estimate(now)
    # Celery looks at the clock twice, a moment apart.
    return (found + timedelta(seconds=0.5)).replace(microsecond=0)


def describe(value: Any) -> str:
    """Return the dotted name of a function or class, or the repr of another value."""
    name: str | None = getattr(value, "__qualname__", None)
    if name is None:
        return repr(value)
    module = getattr(value, "__module__", None)
    return name if module in {None, "builtins"} else f"{module}.{name}"


def _describe_entry(app: Celery, entry: ScheduleEntry) -> dict[str, Any]:
    found = _introspector(app).get("periodic tasks", entry.name)
    try:
        run = next_run(entry).isoformat()
    except Exception:  # noqa: BLE001 a schedule that can never be met
        run = None
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": _describe_schedule(entry.schedule),
        "next_run": run,
        "args": list(entry.args or ()),
        "kwargs": dict(entry.kwargs or {}),
        "options": dict(entry.options or {}),
        "registered": _file_and_line(found),
    }


def _describe_schedule(value: Any) -> str:
    """Return a schedule in the form of an ini."""
    if isinstance(value, crontab):
        _, (minute, hour, day_of_week, day_of_month, month), *_ = value.__reduce__()
        return f"{minute} {hour} {day_of_month} {month} {day_of_week}"
    if type(value) is schedule:
        return f"{value.run_every.total_seconds():g} s"
    return repr(value)


def _introspector(app: Celery) -> Introspector:
    # A factory of another package may have made the Celery application.
    return (
        app.registry.introspector if isinstance(app, PyramidCelery) else Introspector()
    )


def _changed(app: Celery, task: Task, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options, given or from the settings, that differ from the defaults."""
    defaults = {name: DEFAULTS.get(setting) for name, setting in Task.from_config}
    configured = {
        name: getattr(task, name)
        for name, setting in Task.from_config
        if app.conf.get(setting) != defaults[name]
    }
    return {
        name: value
        for name, value in sorted({**configured, **options}.items())
        if value != defaults.get(name, getattr(Task, name, None))
        and (name != "bind" or value)
    }


def _file_and_line(found: Introspectable | None) -> dict[str, Any] | None:
    info = None if found is None else found.action_info
    return {"file": info.file, "line": info.line} if info else None
