"""The checks of ``ptasks --check`` on the settings that name tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from typing import TYPE_CHECKING

from ..configuration.call_options import TASK_OPTIONS, misspelt_options
from ..exceptions import (
    AmbiguousTask,
    SettingError,
    TaskNotRegistered,
    UnknownSetting,
    near_names,
)
from ..loaders.merge import find_task
from ..worker.ignored_settings import pairs

if TYPE_CHECKING:
    from celery import Celery


def check_routes(app: Celery, sections: Iterable[str]) -> Iterator[SettingError]:
    """Yield the routes of tasks that the application does not have.

    Args:
        app: The application.
        sections: The names of the sections in its file.
    """
    known = set(sections)
    for name, _ in pairs(app.conf.task_routes):
        section = f"celeryroute:{name}"
        key = f"[{section}]" if section in known else "celery.task_routes"
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


def check_annotations(app: Celery) -> Iterator[SettingError]:
    """Yield the annotations of tasks, and with options, that nobody knows."""
    key = "celery.task_annotations"
    for name, options in pairs(app.conf.task_annotations):
        if name != "*" and name not in app.tasks:
            nearest = "".join(near_names(str(name), app.tasks)) or None
            problem = f"has options for {name!r}: no task has that name."
            yield UnknownSetting(key, problem, nearest)
            continue
        tasks = app.tasks.values() if name == "*" else [app.tasks[name]]
        for option, near in misspelt_options(options, TASK_OPTIONS):
            # A base may have an attribute of its own. "@" goes around a method.
            # Celery has added the option itself to the class of the task.
            bases = [base for task in tasks for base in type(task).__mro__[1:]]
            if not any(hasattr(base, option.removeprefix("@")) for base in bases):
                problem = f"has {option} for {name!r}, which nobody knows."
                yield UnknownSetting(key, problem, near)
