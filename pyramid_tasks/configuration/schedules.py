"""``config.add_periodic_task``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kombu.exceptions import EncodeError
from kombu.serialization import dumps
from kombu.utils.functional import reprcall
from pyramid.util import is_nonstr_iter

from ..application import PyramidCelery
from ..exceptions import DeferError, TaskError
from ..registry import check_arguments, get_tasks, relate
from .beat_schedule import check_schedule
from .call_options import check_options, check_scheduled
from .importable import maybe_dotted
from .kinds import Check, dictionary, one_of, that
from .load import reporting, reporting_directive

if TYPE_CHECKING:
    from celery import Task
    from celery.schedules import BaseSchedule
    from pyramid.config import Configurator

_OF_CALL: dict[str, Check] = {
    "args": that(
        "a list of arguments, such as [1, 2]",
        lambda value: is_nonstr_iter(value) and not isinstance(value, Mapping),
    ),
    "kwargs": dictionary(),
}


@reporting_directive
def add_periodic_task(
    config: Configurator,
    schedule: float | timedelta | BaseSchedule | str,
    func_or_name: Callable[..., Any] | str | Task,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **opts: Any,
) -> None:
    """Add an entry to the schedule of ``celery beat``.

    Args:
        schedule: Seconds, a timedelta, a Celery schedule such as ``crontab(hour=3)``,
            or a cron expression of five fields.
        func_or_name: The task: its function, dotted name, registered name or the
            Celery task.
        args: Positional arguments of the task, after the request.
        kwargs: Keyword arguments of the task.
        opts: ``name`` is the name of the entry. Two entries for one task with the same
            arguments need names. All others are options of ``Task.apply_async``. See
            `Periodic tasks
            <https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html>`_.

    Raises:
        TaskError: The schedule cannot be read, or an option is misspelt.
        pyramid.exceptions.ConfigurationExecutionError: At the commit, as Pyramid wraps
            the errors of actions: the application has no such task
            (:class:`.TaskNotRegistered`), or the task, or its serializer, does not take
            the arguments (:class:`.DeferError`).
    """
    tasks = get_tasks(config.registry)
    called = getattr(func_or_name, "__qualname__", func_or_name)
    title = opts.pop("name", None)
    try:
        check_options({"args": args, "kwargs": kwargs}, _OF_CALL)
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        title = title or reprcall(called, args, kwargs)
        schedule = check_schedule(schedule)
        check_scheduled(opts)
    except ValueError as error:
        raise TaskError(f"The periodic task {title or called}: {error}") from None

    def register() -> None:
        # A dotted name may be relative to the package, as in any directive.
        is_relative = isinstance(func_or_name, str) and func_or_name.startswith(".")
        task = tasks.find(
            maybe_dotted(config, func_or_name) if is_relative else func_or_name
        )
        try:
            check_entry(task, args, kwargs, opts)
        except (TypeError, ValueError) as error:
            raise DeferError(f"The periodic task {title}: {error}") from None
        relate(introspectable, config.registry, "tasks", task.name)
        tasks.app.add_periodic_task(
            schedule, task.signature(), args, kwargs, name=title, **opts
        )

    introspectable = config.introspectable(
        "periodic tasks", title, title, "periodic task"
    )
    introspectable.update(
        schedule=schedule, task=func_or_name, args=args, kwargs=kwargs, options=opts
    )
    # After the tasks, wherever in the application they are registered.
    action = reporting(config.action_info)(register)
    config.action(
        ("periodic task", title), action, introspectables=(introspectable,), order=10
    )


def check_entry(
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Check what beat sends.

    Raises:
        TypeError: The task does not take the arguments.
        ValueError: Its serializer does not, or an option names no delivery.
    """
    check_arguments(task, args, kwargs)
    if isinstance(task.app, PyramidCelery):
        known = get_tasks(task.app.registry).deliveries
        check_options({**options}, {"delivery": one_of(*known)})
    try:
        dumps((args, kwargs), options.get("serializer") or task.serializer)
    except EncodeError as error:
        from celery.beat import BeatLazyFunc  # which beat calls before it sends

        given = (*args, *kwargs.values())
        if not any(isinstance(each, BeatLazyFunc) for each in given):
            raise ValueError(f"its arguments cannot be sent: {error}") from None
