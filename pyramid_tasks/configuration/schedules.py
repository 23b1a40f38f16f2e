"""``config.add_periodic_task``, and how a schedule is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import reprcall
from pyramid.exceptions import ConfigurationError

from ..exceptions import near_names
from ..registry import check_arguments, get_tasks, relate
from .call_options import check_options, check_scheduled
from .kinds import Check, dictionary, of
from .load import reporting, reporting_directive

if TYPE_CHECKING:
    from celery import Task
    from celery.schedules import BaseSchedule, crontab
    from pyramid.config import Configurator

_ENTRY_KEYS = {"task", "type", "schedule", "args", "kwargs", "options", "relative"}
_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_OF_ENTRY: dict[str, Check] = {
    "args": of("a list", list, tuple),
    "kwargs": dictionary(),
    "options": dictionary(check_scheduled),
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
        pyramid.exceptions.ConfigurationError: The schedule cannot be read, or an option
            is misspelt.
        TaskNotRegistered: The application has no such task, once committed.
    """
    tasks = get_tasks(config.registry)
    if isinstance(schedule, (str, int, float)):
        try:
            schedule = parse_schedule(str(schedule))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    args, kwargs = tuple(args), dict(kwargs or {})
    title = opts.pop("name", None) or reprcall(
        getattr(func_or_name, "__qualname__", func_or_name), args, kwargs
    )
    try:
        check_scheduled(opts)
    except ValueError as error:
        raise ConfigurationError(f"The periodic task {title}: {error}") from None

    def register() -> None:
        # A dotted name may be relative to the package, as in any directive.
        is_relative = isinstance(func_or_name, str) and func_or_name.startswith(".")
        task = tasks.find(
            config.maybe_dotted(func_or_name) if is_relative else func_or_name
        )
        check_arguments(task, args, kwargs)
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
    action = reporting(config.action_info, TypeError)(register)
    config.action(
        ("periodic task", title), action, introspectables=(introspectable,), order=10
    )


def parse_schedule(text: str, type_: str | None = None) -> float | timedelta | crontab:
    """Read a schedule.

    Args:
        text: A cron expression of five fields (``0 3 * * *``) or a number of seconds;
            with a type, JSON.
        type_: ``crontab`` or ``timedelta`` for a JSON object of their arguments,
            ``integer`` for a number of seconds; the form of older packages.

    Raises:
        ValueError: The schedule cannot be read; the message says what was expected.
    """
    text = text.strip()
    try:
        if type_ is not None:
            return _TYPES[type_](json.loads(text))
        fields = text.split()
        if len(fields) == len(_CRON_FIELDS):
            return _crontab(dict(zip(_CRON_FIELDS, fields, strict=True)))
        return _seconds(text)
    except KeyError:
        expected = "type = crontab, timedelta or integer"
        raise ValueError(f"type {type_!r} is unknown; write {expected}") from None
    except (TypeError, ValueError, OverflowError) as error:
        expected = (
            f"JSON for type = {type_}"
            if type_
            else "a cron expression of five fields or a number of seconds"
        )
        detail = "too large" if isinstance(error, OverflowError) else error
        raise ValueError(f"schedule {text!r} is not {expected} ({detail})") from error


class ScheduleError(ValueError):
    """Entries of ``beat_schedule`` cannot be read.

    Attributes:
        problems: What is wrong with each.
        readable: The other entries.
    """

    def __init__(self, problems: list[str], readable: dict[str, Any]) -> None:
        super().__init__(problems, readable)
        self.problems = problems
        self.readable = readable


def read_schedule(entries: Any) -> dict[str, Any]:
    """Return the value of ``beat_schedule``, with what beat needs as its schedules.

    Args:
        entries: For each name an entry. The schedule of an entry may be written as in
            ``[celerybeat:NAME]``, with a ``type`` or without.

    Raises:
        ScheduleError: An entry cannot be read.
    """
    problems, readable = [], {}
    if not isinstance(entries, Mapping):
        problems.append('is no dictionary: write {"NAME": {"task": ..., ...}}.')
        entries = {}
    for name, entry in entries.items():
        try:
            readable[name] = _read_entry(entry)
        except ValueError as error:
            problems.append(f"has an entry {name!r} that cannot be read: {error}")
    if problems:
        raise ScheduleError(problems, readable)
    return readable


def _read_entry(entry: Any) -> Any:
    if hasattr(entry, "schedule"):  # as beat has it
        return entry
    if not isinstance(entry, Mapping):
        raise ValueError("it is no dictionary.")  # noqa: TRY004 a value
    for key in "task", "schedule":
        if not entry.get(key):
            raise ValueError(f"{key} is missing.")
    for key in entry.keys() - _ENTRY_KEYS:  # another scheduler may have more keys
        for near in near_names(key, _ENTRY_KEYS, cutoff=0.75):
            raise ValueError(f"it has {key}. Did you mean {near}?")
    read = {key: value for key, value in entry.items() if key != "type"}
    check_options(read, _OF_ENTRY)
    schedule, type_ = entry["schedule"], entry.get("type")
    if isinstance(schedule, (str, dict)):
        if isinstance(schedule, dict) and not type_:
            raise ValueError("schedule is a JSON object; add type = crontab, say.")
        text = schedule if isinstance(schedule, str) else json.dumps(schedule)
        read["schedule"] = parse_schedule(text, type_)
    elif isinstance(schedule, (int, float)):
        read["schedule"] = parse_schedule(json.dumps(schedule))
    return read


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError("not a positive number")
    timedelta(seconds=seconds)  # as beat counts
    return seconds


def _crontab(fields: dict[str, Any]) -> crontab:
    from celery.schedules import ParseException, crontab  # slow, for a web process

    try:
        return crontab(**fields)
    except ParseException as error:
        raise ValueError(str(error)) from error


def _timedelta(fields: dict[str, float]) -> timedelta:
    delta = timedelta(**fields)
    _seconds(delta.total_seconds())
    return delta


_TYPES = {
    "crontab": _crontab,
    "timedelta": _timedelta,
    "integer": _seconds,
}
