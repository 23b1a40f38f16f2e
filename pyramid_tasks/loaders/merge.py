"""The schedules and routes of a file are merged with the settings of its application.

In a worker and in a web process, the application's settings come first, then the
settings of ``[celery:NAME]``, then the sections ``[celerybeat:NAME]`` and
``[celeryroute:TASK]``. The later ones win.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyramid.config.actions import ActionInfo
from pyramid.registry import Introspectable

from ..application import PyramidCelery
from ..configuration.load import reporting, warn
from ..configuration.schedules import check_entry
from ..exceptions import AmbiguousTask, LoadError, TaskNotRegistered
from ..registry import check_arguments, get_tasks, relate
from ..settings import Settings, merge_settings

if TYPE_CHECKING:
    from celery import Celery, Task

logger = logging.getLogger(__name__)


def add_sections(app: Celery, filename: str, sections: Settings) -> None:
    """Add the schedules and routes of a file to a Celery application.

    Raises:
        LoadError: A task is not registered, or does not take its arguments.
    """
    sections = {**sections}
    if "beat_schedule" in sections:
        # The modules in Celery's setting "imports" may register tasks.
        app.loader.import_default_modules()
        schedule = {}
        for name, entry in sections["beat_schedule"].items():
            with reporting():
                if "task" in entry:
                    _resolve(app, filename, name, entry)
                if {"task", "schedule"} <= entry.keys():
                    schedule[name] = entry
                    if isinstance(app, PyramidCelery):
                        _introspect(app, filename, name, entry)
        sections["beat_schedule"] = schedule
    if "task_routes" in sections and isinstance(app, PyramidCelery):
        _warn_of_web_process(app, filename)
    app.conf.update(merge_settings({key: app.conf[key] for key in sections}, sections))


def find_task(app: Celery, name: str) -> Task:
    """Return the task of a name, or of the dotted name of its function.

    Raises:
        TaskNotRegistered: There is none.
        AmbiguousTask: The function has several names.
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
        if "schedule" in entry:
            args, kwargs = tuple(entry.get("args", ())), entry.get("kwargs", {})
            key = "args and kwargs"
            check_arguments(task, args, kwargs)
            key = "options"
            check_entry(task, args, kwargs, entry.get("options", {}))
    except (TaskNotRegistered, AmbiguousTask, TypeError, ValueError) as error:
        message = f"{filename}, [celerybeat:{name}], {key}: {error}"
        raise LoadError(message, filename) from error
    entry["task"] = task.name


def _introspect(
    app: PyramidCelery, filename: str, name: str, entry: dict[str, Any]
) -> None:
    """Make an entry introspectable, as ``config.add_periodic_task`` does."""
    introspectable = Introspectable("periodic tasks", name, name, "periodic task")
    introspectable.update(
        schedule=entry["schedule"],
        task=entry["task"],
        args=tuple(entry.get("args", ())),
        kwargs=entry.get("kwargs", {}),
        options=entry.get("options", {}),
    )
    relate(introspectable, app.registry, "tasks", entry["task"])
    header = f"[celerybeat:{name}]"
    lines = Path(filename).read_text(errors="replace").splitlines()
    numbers = (
        number
        for number, line in enumerate(lines, start=1)
        if line.replace(" ", "").startswith(header.replace(" ", ""))
    )
    file = str(Path(filename).absolute())
    info = ActionInfo(file, next(numbers, 0), "", header)
    introspectable.register(app.registry.introspector, info)


def _warn_of_web_process(app: PyramidCelery, filename: str) -> None:
    if not app.registry.settings.get("pyramid_tasks.config_uri"):
        message = (
            f"{filename} has [celeryroute:...] sections, which a web process does not "
            "know of: add pyramid_tasks.config_uri = %(__file__)s to the section of "
            "the application."
        )
        warn(logger, LoadError(message, filename))
