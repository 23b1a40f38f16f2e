"""The ``[celerybeat:NAME]`` sections of a file become entries of Celery's schedule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyramid.config.actions import ActionInfo
from pyramid.registry import Introspectable

from ..application import PyramidCelery
from ..configuration.load import reporting
from ..exceptions import AmbiguousTask, LoadError, TaskNotRegistered
from ..registry import check_arguments, get_tasks, relate

if TYPE_CHECKING:
    from celery import Celery, Task
    from pyramid.registry import Registry


def add_schedule(
    app: Celery, filename: str, schedule: dict[str, dict[str, Any]]
) -> None:
    """Add what a file has to the schedule of its Celery application.

    Raises:
        LoadError: A task is not registered, or cannot be called so.
    """
    # Tasks of modules in Celery's own "imports" are registered when these are.
    app.loader.import_default_modules()
    added = {}
    for name, entry in schedule.items():
        with reporting():
            if "task" in entry:
                _resolve(app, filename, name, entry)
            if {"task", "schedule"} <= entry.keys():
                added[name] = entry
                _introspect(app, filename, name, entry)
    app.conf.beat_schedule = {**app.conf.beat_schedule, **added}


def find_task(app: Celery, name: str) -> Task:
    """Return the task of a name, or of the dotted name of its function.

    Raises:
        TaskNotRegistered: There is none.
        AmbiguousTask: It is a function with several names.
    """
    if isinstance(app, PyramidCelery):
        return get_tasks(app.registry).find(name)
    if name not in app.tasks:
        raise TaskNotRegistered(name)
    return app.tasks[name]


def _resolve(app: Celery, filename: str, name: str, entry: dict[str, Any]) -> None:
    key = "task"
    try:
        task = find_task(app, entry["task"])
        key = "args and kwargs"
        check_arguments(task, entry.get("args", ()), entry.get("kwargs", {}))
    except (TaskNotRegistered, AmbiguousTask, TypeError) as error:
        message = f"{filename}, [celerybeat:{name}], {key}: {error}"
        raise LoadError(message, filename) from error
    entry["task"] = task.name


def _introspect(app: Celery, filename: str, name: str, entry: dict[str, Any]) -> None:
    """Make an entry introspectable, as ``config.add_periodic_task`` does."""
    registry: Registry | None = getattr(app.loader, "registry", None)
    if registry is None:
        return
    introspectable = Introspectable("periodic tasks", name, name, "periodic task")
    introspectable.update(
        schedule=entry["schedule"],
        task=entry["task"],
        args=tuple(entry.get("args", ())),
        kwargs=entry.get("kwargs", {}),
        options=entry.get("options", {}),
    )
    relate(introspectable, registry, "tasks", entry["task"])
    header = f"[celerybeat:{name}]"
    lines = Path(filename).read_text(errors="replace").splitlines()
    numbers = [
        number
        for number, line in enumerate(lines, start=1)
        if line.replace(" ", "").startswith(header.replace(" ", ""))
    ]
    info = ActionInfo(
        str(Path(filename).absolute()), numbers[0] if numbers else 0, "", header
    )
    introspectable.register(registry.introspector, info)
