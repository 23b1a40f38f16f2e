"""How a schedule is written, in text and in ``beat_schedule``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .call_options import check_options, check_scheduled, misspelt_options
from .kinds import Check, dictionary, of

if TYPE_CHECKING:
    from celery.schedules import crontab

_ENTRY_KEYS = {"task", "type", "schedule", "args", "kwargs", "options", "relative"}
_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_OF_ENTRY: dict[str, Check] = {
    "args": of("a list", list, tuple),
    "kwargs": dictionary(),
    "options": dictionary(check_scheduled),
}


def check_schedule(schedule: Any) -> Any:
    """Return a schedule as beat needs it.

    Args:
        schedule: As for :func:`add_periodic_task`.

    Raises:
        ValueError: It is none, or would be due all the time.
    """
    if isinstance(schedule, (str, int, float)):
        return parse_schedule(str(schedule))
    every = getattr(schedule, "run_every", schedule)
    if isinstance(every, timedelta):
        if every <= timedelta(0):
            raise ValueError(
                f"schedule {schedule!r} is due all the time: write a positive time."
            )
    elif isinstance(schedule, type) or not hasattr(schedule, "is_due"):
        raise ValueError(
            f"schedule {schedule!r} is not a number of seconds, a timedelta, a cron "
            "expression of five fields or a schedule of Celery, such as "
            "crontab(hour=3)."
        )
    return schedule


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
        problems: The problem of each entry.
        readable: The other entries.
    """

    def __init__(self, problems: list[str], readable: dict[str, Any]) -> None:
        super().__init__(problems, readable)
        self.problems = problems
        self.readable = readable


def read_schedule(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of ``beat_schedule``, with what beat needs as its schedules.

    Args:
        entries: For each name an entry. The schedule of an entry may be written as in
            ``[celerybeat:NAME]``, with a ``type`` or without.

    Raises:
        ScheduleError: An entry cannot be read.
    """
    problems, readable = [], {}
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
        check_schedule(entry.schedule)
        return entry
    if not isinstance(entry, Mapping):
        raise ValueError("it is no dictionary.")  # noqa: TRY004 a value
    for key in "task", "schedule":
        if not entry.get(key):
            raise ValueError(f"{key} is missing.")
    # Another scheduler may have more keys.
    for key, near in misspelt_options(entry, _ENTRY_KEYS):
        raise ValueError(f"it has {key}. Did you mean {near}?")
    read = {key: value for key, value in entry.items() if key != "type"}
    check_options(read, _OF_ENTRY)
    schedule, type_ = entry["schedule"], entry.get("type")
    if isinstance(schedule, dict) and not type_:
        raise ValueError("schedule is a JSON object; add type = crontab, say.")
    if isinstance(schedule, (str, dict, int, float)):
        text = schedule if isinstance(schedule, str) else json.dumps(schedule)
        read["schedule"] = parse_schedule(text, type_)
    else:
        check_schedule(schedule)
    return read


def _seconds(value: Any) -> float:
    seconds = float(value)
    # Beat counts in microseconds.
    if not 0 < seconds < float("inf") or not timedelta(seconds=seconds):
        raise ValueError("not a positive number")
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
