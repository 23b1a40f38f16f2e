"""``[celerybeat:NAME]`` and ``[celeryroute:TASK]`` in an ini file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..exceptions import LoadError
from ..schedules import parse_schedule
from ..settings import coerce_nested

if TYPE_CHECKING:
    from paste.deploy.loadwsgi import ConfigLoader

logger = logging.getLogger(__name__)

_KINDS = ("celery", "celerybeat", "celeryroute")
_BEAT_KEYS = {"task", "type", "schedule", "args", "kwargs", "options"}


def read_schedule(reader: ConfigLoader) -> dict[str, dict[str, Any]]:
    """Return the entries of Celery's ``beat_schedule`` that a file has.

    Raises:
        LoadError: A key is missing, unknown, or has a value that cannot be read.
    """
    return {
        name: _read_entry(reader.filename, f"celerybeat:{name}", items)
        for name, items in _sections(reader, "celerybeat:")
    }


def read_routes(reader: ConfigLoader) -> dict[str, dict[str, Any]]:
    """Return the entries of Celery's ``task_routes`` that a file has."""
    return {
        name: {
            key: _read_json(reader.filename, f"celeryroute:{name}", key, value)
            for key, value in items.items()
        }
        for name, items in _sections(reader, "celeryroute:")
    }


def warn_of_misspelt(reader: ConfigLoader) -> None:
    """Log a warning for each section whose name is nearly one of Celery's."""
    for section in reader.parser.sections():
        kind, colon, _ = section.partition(":")
        nearest = get_close_matches(kind, _KINDS, n=1, cutoff=0.8)
        if colon and nearest and kind not in _KINDS:
            logger.warning(
                "%s, [%s]: did you mean [%s:...]?", reader.filename, section, nearest[0]
            )


def _sections(
    reader: ConfigLoader, prefix: str
) -> Iterator[tuple[str, dict[str, str]]]:
    parser = reader.parser
    defaults = parser.defaults()
    for section in parser.sections():
        if section.startswith(prefix):
            # What stands in [DEFAULT] is for interpolation, as in all of PasteDeploy.
            yield (
                section.removeprefix(prefix).strip(),
                {
                    key: parser.get(section, key)
                    for key in parser.options(section)
                    if key not in defaults
                },
            )


def _read_entry(filename: str, section: str, items: dict[str, str]) -> dict[str, Any]:
    for key in ("task", "schedule"):
        if not items.get(key):
            raise LoadError(f"{filename}, [{section}]: {key} is missing.", filename)
    if unknown := sorted(items.keys() - _BEAT_KEYS):
        raise LoadError(
            f"{filename}, [{section}]: {unknown[0]} is not a key of a schedule; those "
            f"are {', '.join(sorted(_BEAT_KEYS))}.",
            filename,
        )
    try:
        schedule = parse_schedule(items["schedule"], items.get("type"))
    except ValueError as error:
        raise LoadError(f"{filename}, [{section}]: {error}.", filename) from error
    entry: dict[str, Any] = {"task": items["task"], "schedule": schedule}
    for key, type_ in (("args", list), ("kwargs", dict), ("options", dict)):
        if key in items:
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
