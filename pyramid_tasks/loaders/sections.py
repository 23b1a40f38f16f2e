"""``[celerybeat:NAME]`` and ``[celeryroute:TASK]`` in an ini file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .._celery import SETTING_TYPES
from ..coercion import NESTING, coerce_nested
from ..configuration.call_options import misspelt_options, unknown_option
from ..configuration.load import report, reporting, warn
from ..configuration.schedules import parse_schedule
from ..exceptions import LoadError
from ..settings import Settings, known_name
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
                    if problem := unknown_option(key):
                        message = (
                            f"{reader.filename}, [{section}]: {key} is not an option "
                            f"of a route. {problem}"
                        )
                        raise LoadError(message, reader.filename)
                    _check_route(reader.filename, section, key, loaded)
                    routes[name][key] = loaded
    found = {"beat_schedule": schedule, "task_routes": routes}
    return {key: value for key, value in found.items() if value}


def check_sections(reader: ConfigLoader) -> None:
    """Report the sections that nobody reads, but whose names are nearly ones of ours.

    Raises:
        LoadError: A section has the settings of a dictionary, as if it were one.
    """
    filename = reader.filename
    for section in reader.parser.sections():
        kind, colon, name = section.partition(":")
        setting = name.strip() if kind == "celery" else section
        problem = None
        if SETTING_TYPES.get(setting) in NESTING:
            wrong = (
                f"{setting} is a setting, and no section. Write {setting}.KEY = VALUE "
                f"in [celery:main], or celery.{setting}.KEY = VALUE in the section of "
                "the application."
            )
            report(LoadError(f"{filename}, [{section}]: {wrong}", filename))
        elif kind == "celery" and colon and not _is_worker(reader, section):
            wrong = (
                "none of its keys is a setting of Celery, so that no worker can use "
                "it. Write the keys of a dictionary as "
                "broker_transport_options.KEY = VALUE in [celery:main]."
            )
            report(LoadError(f"{filename}, [{section}]: {wrong}", filename))
        elif kind not in _KINDS or (kind != "celery" and not colon):
            cutoff = 0.7 if kind.startswith("celery") else 0.8
            nearest = get_close_matches(kind, _KINDS, n=1, cutoff=cutoff)
            if nearest and (colon or kind.startswith("celery")):
                problem = f"did you mean [{nearest[0]}:...]?"
            elif section in SETTING_TYPES:
                problem = (
                    f"did you mean {section} = VALUE in [celery:main], or "
                    f"celery.{section} = VALUE in the section of the application?"
                )
        if problem:
            warn(logger, LoadError(f"{filename}, [{section}]: {problem}", filename))


def _is_worker(reader: ConfigLoader, section: str) -> bool:
    keys = [
        key
        for key in reader.parser.options(section)
        if key not in reader.parser.defaults()
    ]
    return not keys or any(
        key in {"use", "app", "paste.celery_factory"}
        or key.startswith(("set ", "get "))
        or known_name(key.partition(".")[0])
        or get_close_matches(key.lower(), SETTING_TYPES, n=1, cutoff=0.85)
        for key in keys
    )


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
    for option, near in misspelt_options(entry.get("options", ())):
        wrong = f"options has {option}. Did you mean {near}?"
        report(LoadError(f"{filename}, [{section}]: {wrong}", filename))
    return entry


#: The types of the values of a route, where the ini could have another.
_OF_ROUTE: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(
        ("queue", "routing_key", "exchange", "exchange_type", "serializer"),
        ((str,), "a name; put it in double quotes if it is a number"),
    ),
    "priority": ((int,), "a whole number"),
    "retry_policy": ((dict,), "a JSON object"),
}


def _check_route(filename: str, section: str, key: str, value: Any) -> None:
    types, expected = _OF_ROUTE.get(key, ((object,), ""))
    if not isinstance(value, types):
        message = f"{filename}, [{section}]: {key} = {value} is not {expected}."
        raise LoadError(message, filename)


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
