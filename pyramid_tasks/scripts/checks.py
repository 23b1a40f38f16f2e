"""The checks of ``ptasks --check`` on an application that has been opened.

Nothing here connects to a broker, a result backend or a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from celery.backends.base import DisabledBackend
from celery.exceptions import QueueNotFound

from ..application import PyramidCelery
from ..configuration.beat_schedule import check_schedule
from ..configuration.call_options import TASK_OPTIONS, misspelt_options
from ..configuration.load import report
from ..configuration.schedules import check_entry
from ..delivery.immediate import route
from ..exceptions import SettingError, TaskNotRegistered, UnknownSetting
from ..loaders.merge import find_task
from ..registry import get_tasks
from .listing import entry_of, list_tasks, next_run, own_tasks
from .outbox_checks import check_inbox, check_outbox
from .route_checks import check_annotations, check_routes
from .worker_checks import check_worker

if TYPE_CHECKING:
    from celery import Celery


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
        check_outbox(app),
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
