"""Schedules as they are written in an ini file become schedules of Celery."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from celery.schedules import ParseException, crontab

_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def parse_schedule(text: str, type_: str | None = None) -> float | timedelta | crontab:
    """Read a schedule.

    Args:
        text: A cron expression of five fields (``0 3 * * *``) or a number of seconds;
            with a type, JSON.
        type_: ``crontab`` or ``timedelta`` for a JSON object of their arguments,
            ``integer`` for a number of seconds; the form of older packages.

    Raises:
        ValueError: It is neither; the message says what was expected.
    """
    text = text.strip()
    try:
        if type_ is not None:
            return _TYPES[type_](json.loads(text))
        fields = text.split()
        if len(fields) == len(_CRON_FIELDS):
            return crontab(**dict(zip(_CRON_FIELDS, fields, strict=True)))
        return _seconds(text)
    except KeyError:
        expected = "type = crontab, timedelta or integer"
        raise ValueError(f"type {type_!r} is none of those known: {expected}") from None
    except (ParseException, TypeError, ValueError) as error:
        expected = (
            f"JSON for type = {type_}"
            if type_
            else "a cron expression of five fields or a number of seconds"
        )
        raise ValueError(f"schedule {text!r} is not {expected} ({error})") from error


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError("not a positive number")
    return seconds


def _timedelta(fields: dict[str, float]) -> timedelta:
    delta = timedelta(**fields)
    _seconds(delta.total_seconds())
    return delta


_TYPES = {
    "crontab": lambda fields: crontab(**fields),
    "timedelta": _timedelta,
    "integer": _seconds,
}
