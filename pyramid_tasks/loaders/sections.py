"""``[celerybeat:NAME]`` and ``[celeryroute:TASK]`` in an ini file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..configuration.load import report, reporting, warn
from ..configuration.schedules import parse_schedule
from ..exceptions import LoadError
from ..settings import Settings, coerce_nested
from .errors import plain_errors

if TYPE_CHECKING:
    from paste.deploy.loadwsgi import ConfigLoader

logger = logging.getLogger(__name__)

_KINDS = ("celery", "celerybeat", "celeryroute")
_BEAT_KEYS = {"task", "type", "schedule", "args", "kwargs", "options"}


def read_sections(reader: ConfigLoader) -> Settings:
    """Return the schedules and routes of a file as Celery settings.

    The settings are ``beat_schedule`` and ``task_routes``, if the file has any.

    Raises:
        LoadError: A key is missing or unknown, or its value cannot be read.
    """
    schedule = {}
    for section, name in _sections(reader, "celerybeat:"):
        with reporting(), plain_errors(reader.filename):
            items = _items(reader, section)
            schedule[name] = _read_entry(reader.filename, section, items)
    routes: dict[str, dict[str, Any]] = {}
    for section, name in _sections(reader, "celeryroute:"):
        routes[name] = {}
        with reporting(), plain_errors(reader.filename):
            for key, value in _items(reader, section).items():
                with reporting():
                    loaded = _read_json(reader.filename, section, key, value)
                    routes[name][key] = loaded
    found = {"beat_schedule": schedule, "task_routes": routes}
    return {key: value for key, value in found.items() if value}


def warn_of_misspelt(reader: ConfigLoader) -> None:
    """Log a warning for each section whose name is nearly one of ours."""
    for section in reader.parser.sections():
        kind, colon, _ = section.partition(":")
        nearest = get_close_matches(kind, _KINDS, n=1, cutoff=0.8)
        if colon and nearest and kind not in _KINDS:
            message = (
                f"{reader.filename}, [{section}]: did you mean [{nearest[0]}:...]?"
            )
            warn(logger, LoadError(message, reader.filename))


def _sections(reader: ConfigLoader, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the sections of a kind, each with its name after the prefix."""
    for section in reader.parser.sections():
        if section.startswith(prefix):
            yield section, section.removeprefix(prefix).strip()


def _items(reader: ConfigLoader, section: str) -> dict[str, str]:
    parser = reader.parser
    # PasteDeploy uses the keys of [DEFAULT] for interpolation only.
    defaults = parser.defaults()
    return {
        key: parser.get(section, key)
        for key in parser.options(section)
        if key not in defaults
    }


def _read_entry(filename: str, section: str, items: dict[str, str]) -> dict[str, Any]:
    """Return an entry of the schedule; in a check, as far as it can be read."""
    entry: dict[str, Any] = {}
    problems = [
        f"{key} is missing." for key in ("task", "schedule") if not items.get(key)
    ]
    problems += [
        f"{key} is not a key of a schedule; those are {', '.join(sorted(_BEAT_KEYS))}."
        for key in sorted(items.keys() - _BEAT_KEYS)
    ]
    for problem in problems:
        report(LoadError(f"{filename}, [{section}]: {problem}", filename))
    if items.get("task"):
        entry["task"] = items["task"]
    if items.get("schedule"):
        with reporting():
            try:
                entry["schedule"] = parse_schedule(items["schedule"], items.get("type"))
            except ValueError as error:
                message = f"{filename}, [{section}]: {error}."
                raise LoadError(message, filename) from error
    for key, type_ in (("args", list), ("kwargs", dict), ("options", dict)):
        if key in items:
            with reporting():
                entry[key] = _read_json(filename, section, key, items[key], type_)
    return entry


def _read_json(
    filename: str, section: str, key: str, value: str, type_: type = object
) -> Any:
    names: dict[type, str] = {list: "a JSON array", dict: "a JSON object"}
    expected = names.get(type_, "JSON")
    try:
        loaded = coerce_nested(value)
    except ValueError as error:
        message = f"{filename}, [{section}]: {key} is not {expected} ({error})."
        raise LoadError(message, filename) from error
    if not isinstance(loaded, type_):
        raise LoadError(f"{filename}, [{section}]: {key} is not {expected}.", filename)
    return loaded
