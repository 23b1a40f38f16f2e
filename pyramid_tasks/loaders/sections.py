"""``[celerybeat:NAME]`` and ``[celeryroute:TASK]`` in an ini file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._celery import SETTING_TYPES
from ..coercion import NESTING, coerce_nested
from ..configuration.beat_schedule import parse_schedule
from ..configuration.call_options import check_routed, check_scheduled
from ..configuration.load import report, reporting, warn
from ..configuration.transport_options import READERS
from ..exceptions import LoadError, near_names
from ..settings import Settings, known_name
from .errors import plain_errors

if TYPE_CHECKING:
    from paste.deploy.loadwsgi import ConfigLoader

logger = logging.getLogger(__name__)

_KINDS = ("celery", "celerybeat", "celeryroute")
_OF_INI = {"celerybeat": "beat_schedule", "celeryroute": "task_routes"}
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
                    try:
                        check_routed({key: loaded})
                    except ValueError as error:
                        raise _mistake(reader.filename, section, error) from None
                    routes[name][key] = loaded
    found = {"beat_schedule": schedule, "task_routes": routes}
    return {key: value for key, value in found.items() if value}


def check_sections(reader: ConfigLoader) -> None:
    """Report the sections and keys that nobody reads, but that seem to be ours.

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
            report(_mistake(filename, section, wrong))
        elif kind == "celery" and colon and _has_options(reader, section):
            wrong = (
                "none of its keys is a setting of Celery, so that no worker can use "
                "it. Write the keys of a dictionary as "
                "broker_transport_options.KEY = VALUE in [celery:main]."
            )
            report(_mistake(filename, section, wrong))
        elif near_names(section.lower(), ["pyramid_tasks"], cutoff=0.9):
            problem = (
                "did you mean pyramid_tasks.KEY = VALUE in the section of the "
                "application?"
            )
        elif kind not in _KINDS or (kind != "celery" and not colon):
            cutoff = 0.7 if kind.startswith("celery") else 0.8
            nearest = near_names(kind, _KINDS, cutoff=cutoff)
            if meant := _meant_setting(section):
                problem = (
                    f"did you mean {meant} = VALUE in [celery:main], or "
                    f"celery.{meant} = VALUE in the section of the application?"
                )
            elif nearest and (colon or kind.startswith("celery")):
                problem = f"did you mean [{nearest[0]}:...]?"
        if problem:
            warn(logger, _mistake(filename, section, problem))
    _check_names(reader)


def _check_names(reader: ConfigLoader) -> None:
    """Report the keys that PasteDeploy takes for variables, and leaves out."""
    for section, _ in _sections(reader, "celery"):
        for key, value in reader.parser.defaults().items():
            if reader.parser.get(section, key, raw=True) != value:
                problem = (
                    f"{key} is left out, as [DEFAULT] or a variable has the same name. "
                    "Give that one another name."
                )
                warn(logger, _mistake(reader.filename, section, problem))


def check_others(uri: str, sections: list[str]) -> None:
    """Report the sections that nobody reads, in a file that is no ini.

    Raises:
        LoadError: A section has schedules or routes.
    """
    for section in sections:
        kind = section.partition(":")[0]
        problem = None
        if setting := _OF_INI.get(kind):
            wrong = (
                "only an ini has such sections. Write the keys in the section "
                f"'celery', below {setting}."
            )
            report(LoadError(f"{uri}, section {section!r}: {wrong}", uri))
        elif near_names(section.lower(), ["pyramid_tasks"], cutoff=0.9):
            problem = (
                'did you mean "pyramid_tasks.KEY" in the section of the application?'
            )
        elif kind != "celery":
            if meant := _meant_setting(section):
                problem = f"did you mean {meant} in the section 'celery'?"
            elif kind.startswith("celery") or near_names(kind, ["celery"], cutoff=0.8):
                nearest = near_names(kind, [*_OF_INI, "celery"])
                problem = f"did you mean {nearest[0]!r}?" if nearest else None
        if problem:
            warn(logger, LoadError(f"{uri}, section {section!r}: {problem}", uri))


def _meant_setting(section: str) -> str | None:
    """Return the setting, with KEY for its keys, that a section is the name of."""
    name = re.sub("^celery[._-]", "", section)
    if name in SETTING_TYPES:
        return f"{name}.KEY" if SETTING_TYPES[name] in NESTING else name
    nesting = [each for each, type_ in SETTING_TYPES.items() if type_ in NESTING]
    return next((f"{near}.KEY" for near in near_names(name, nesting, 0.9)), None)


def check_defaults(reader: ConfigLoader, settings: Mapping[str, Any]) -> None:
    """Report the settings in ``[DEFAULT]`` that do not reach the application.

    Args:
        reader: The reader of the file.
        settings: The settings of the application.
    """
    for key in reader.parser.defaults():
        is_ours = key.startswith(("celery.", "pyramid_tasks."))
        # Others may be variables: for %(...)s, and for a key that begins with "get ".
        is_variable = reader.uses(key) or reader.find_key(key)
        if is_ours and key not in settings and not is_variable:
            problem = (
                f"[DEFAULT]: {key} reaches no application. Write it in the section of "
                "the application, and not here."
            )
            warn(logger, LoadError(f"{reader.filename}, {problem}", reader.filename))


def _has_options(reader: ConfigLoader, section: str) -> bool:
    """Whether a section has options of a transport, and no setting of a worker."""
    keys = _own_keys(reader, section)
    return not READERS.keys().isdisjoint(keys) and not any(
        key in {"use", "app", "paste.celery_factory"}
        or key.startswith(("set ", "get "))
        or known_name(key.partition(".")[0])
        or near_names(key.lower(), SETTING_TYPES, cutoff=0.85)
        for key in keys
    )


def _sections(reader: ConfigLoader, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the sections of a kind, each with its name after the prefix."""
    for section in reader.parser.sections():
        if section.startswith(prefix):
            yield section, section.removeprefix(prefix).strip()


def _own_keys(reader: ConfigLoader, section: str) -> list[str]:
    # PasteDeploy uses the keys of [DEFAULT] for interpolation only.
    defaults = reader.parser.defaults()
    return [key for key in reader.parser.options(section) if key not in defaults]


def _items(reader: ConfigLoader, section: str) -> dict[str, str]:
    keys = _own_keys(reader, section)
    return {key: reader.parser.get(section, key) for key in keys}


def _read_entry(filename: str, section: str, items: dict[str, str]) -> dict[str, Any]:
    """Return an entry of the schedule, without a schedule if a part is wrong."""
    entry: dict[str, Any] = {}
    problems = [
        f"{key} is missing." for key in ("task", "schedule") if not items.get(key)
    ]
    problems += [
        f"{key} is not a key of a schedule; those are {', '.join(sorted(_BEAT_KEYS))}."
        for key in sorted(items.keys() - _BEAT_KEYS)
    ]
    for problem in problems:
        report(_mistake(filename, section, problem))
    if items.get("task"):
        entry["task"] = items["task"]
    if items.get("schedule"):
        with reporting():
            try:
                entry["schedule"] = parse_schedule(items["schedule"], items.get("type"))
            except ValueError as error:
                raise _mistake(filename, section, f"{error}.") from error
    for key, type_ in (("args", list), ("kwargs", dict), ("options", dict)):
        if key in items:
            with reporting():
                entry[key] = _read_json(filename, section, key, items[key], type_)
    if "options" in entry:
        options = entry.pop("options")
        with reporting():
            try:
                check_scheduled(options)
            except ValueError as error:
                message = f"{filename}, [{section}], options: {error}"
                raise LoadError(message, filename) from None
            entry["options"] = options
    if items.keys() - entry.keys() - {"type"}:
        entry.pop("schedule", None)  # what is left may not fit the task
    return entry


def _read_json(
    filename: str, section: str, key: str, value: str, type_: type = object
) -> Any:
    names: dict[type, str] = {list: "a JSON array", dict: "a JSON object"}
    expected = names.get(type_, "JSON")
    try:
        loaded = coerce_nested(value)
    except ValueError as error:
        problem = f"{key} is not {expected} ({error})."
        raise _mistake(filename, section, problem) from error
    if not isinstance(loaded, type_):
        raise _mistake(filename, section, f"{key} is not {expected}.")
    return loaded


def _mistake(filename: str, section: str, problem: object) -> LoadError:
    return LoadError(f"{filename}, [{section}]: {problem}", filename)
