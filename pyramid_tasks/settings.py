"""Strings of an ini file become the configuration of Celery; pure functions.

The type of a setting is the one that the installed Celery declares, so that this
module never falls behind it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from celery.app.utils import HIDDEN_SETTINGS
from pyramid.settings import falsey, truthy

from ._celery import NEW_SETTING_NAMES, SETTING_TYPES
from .exceptions import SettingError, UnknownSetting

logger = logging.getLogger(__name__)

Settings = dict[str, Any]

#: Takes a mistake in the settings, and may raise it.
Report = Callable[[SettingError], None]


def raise_or_log(problem: SettingError) -> None:
    """Log an unknown setting as a warning, and raise any other mistake."""
    if not isinstance(problem, UnknownSetting):
        raise problem
    logger.warning("%s", problem)


def extract_celery_settings(
    settings: Mapping[str, Any], report: Report = raise_or_log
) -> Settings:
    """Return the Celery configuration in an application's settings.

    The function takes every ``celery.<setting>``. Further dots nest:
    ``celery.broker_transport_options.visibility_timeout = 3600`` becomes
    ``{"broker_transport_options": {"visibility_timeout": 3600}}``. Strings are
    coerced to the type that Celery declares for the setting. Other values stay as they
    are. A setting that Celery does not know is kept, and a warning names the nearest
    known setting. Celery lists its settings in `Configuration and defaults
    <https://docs.celeryq.dev/en/stable/userguide/configuration.html>`_.

    Args:
        settings: The settings of a Pyramid application.
        report: Called with each mistake; by default, the first one is raised.

    Raises:
        SettingError: A value has the wrong type, or two keys contradict each other.
    """
    prefix = "celery."
    return coerce_settings(
        {
            key.removeprefix(prefix): value
            for key, value in settings.items()
            if key.startswith(prefix)
        },
        prefix=prefix,
        report=report,
    )


def coerce_settings(
    settings: Mapping[str, Any], prefix: str = "", report: Report = raise_or_log
) -> Settings:
    """Return Celery settings, nested and coerced, from flat ones.

    Args:
        settings: Settings without a prefix, as in ``[celery:main]``.
        prefix: The text before each key in the file, for messages.
        report: As for :func:`extract_celery_settings`.

    Raises:
        SettingError: As for :func:`extract_celery_settings`.
    """
    result: Settings = {}
    # The shortest keys first, so that a value is met before what nests below it.
    for key in sorted(settings, key=lambda key: (key.count("."), key)):
        try:
            _add(result, key, settings[key], prefix, report)
        except SettingError as error:
            report(error)
    return result


def _add(result: Settings, key: str, value: Any, prefix: str, report: Report) -> None:
    name, *nested = key.split(".")
    if name == "celery" and nested and not prefix:
        problem = "is no setting in [celery:NAME], where the prefix is left out."
        report(UnknownSetting(key, problem, ".".join(nested)))
        return
    expected = _expected_type(name, prefix, report)
    name = NEW_SETTING_NAMES.get(name, name)
    if not nested:
        result[name] = _coerce(prefix + key, value, expected)
        return
    if expected not in _NESTING:
        raise SettingError(
            prefix + key,
            f"nests below {prefix}{name}, which is not a dictionary but "
            f"{_COERCE[expected][0]}; give {prefix}{name} a value instead",
        )
    _nest(result, [name, *nested], _coerce(prefix + key, value, "nested"), prefix)


def merge_settings(base: Settings, override: Settings) -> Settings:
    """Return ``base`` with ``override`` on top.

    Dictionaries merge key by key. Celery also takes routes in other forms than a
    dictionary; a dictionary of routes then comes before them.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if not isinstance(value, dict) or not below:
            merged[key] = value
        elif isinstance(below, dict):
            merged[key] = merge_settings(below, value)
        elif key == "task_routes":
            others = below if isinstance(below, (list, tuple)) else [below]
            merged[key] = [value, *others]
        else:
            merged[key] = value
    return merged


def coerce_nested(value: Any) -> Any:
    """Read a string as JSON if it is JSON; keep it as a string otherwise."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if value.lstrip().startswith(("{", "[")):
            raise
        return value


def _to_bool(value: str) -> bool:
    word = value.strip().lower()
    if word in truthy:
        return True
    if word in falsey or not word:
        return False
    raise ValueError(value)


def _to_list(value: str) -> list[Any]:
    if value.lstrip().startswith("["):
        return list(json.loads(value))
    return re.split(r"[\s,]+", value.strip(" \t\r\n,")) if value.strip(" ,\n") else []


def _to_dict(value: str) -> dict[str, Any]:
    loaded = json.loads(value)
    if not isinstance(loaded, dict):
        raise TypeError(value)
    return loaded


def _to_bool_or_dict(value: str) -> bool | dict[str, Any]:
    return _to_dict(value) if value.lstrip().startswith("{") else _to_bool(value)


def _to_int_or_auto(value: str) -> int | str:
    return value if value == "auto" else int(value)


#: A type as Celery names it: what to call it in a message, and how to read it.
_COERCE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "any": ("JSON or a string", coerce_nested),
    "bool": ("a boolean (true or false)", _to_bool),
    "bool or dict": ("a boolean or a JSON object", _to_bool_or_dict),
    "bytes": ("a string", str.encode),
    "dict": ('a dictionary (a JSON object such as {"key": "value"})', _to_dict),
    "float": ("a number (float)", float),
    "int": ("a whole number (int)", int),
    "int or auto": ("a whole number (int), or auto", _to_int_or_auto),
    "list": ("a list (words, or a JSON array)", _to_list),
    "nested": ("JSON or a string", coerce_nested),
    "string": ("a string", str),
    "tuple": ("a list (words, or a JSON array)", _to_list),
}
_NESTING = {"any", "bool or dict", "dict"}


def _expected_type(name: str, prefix: str, report: Report) -> str:
    expected = SETTING_TYPES.get(NEW_SETTING_NAMES.get(name, name))
    if expected is not None:
        return expected if expected in _COERCE else "any"
    nearest = get_close_matches(name.lower(), SETTING_TYPES, n=1)
    problem = (
        "is not a setting that this version of Celery knows; it is passed on as it is."
    )
    hint = prefix + nearest[0] if nearest else None
    report(UnknownSetting(prefix + name, problem, hint))
    return "any"


def _coerce(key: str, value: Any, expected: str) -> Any:
    if not isinstance(value, str):
        return value
    if value.strip() == "null" and expected != "string":
        return None
    description, coerce = _COERCE[expected]
    try:
        return coerce(value)
    except (TypeError, ValueError) as error:
        detail = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        # Not "from error": what Python says of a number shows the value.
        raise SettingError(
            key, f"= {_displayed(key, value)} is not {description}{detail}"
        ) from None


def _displayed(key: str, value: str) -> str:
    """Return a value for a message, without what may be a secret."""
    text = f"{key} {value}"
    if HIDDEN_SETTINGS.search(text) or re.search(r"://\S*@", text):
        return "********"
    return repr(value)


def _nest(result: Settings, path: list[str], value: Any, prefix: str) -> None:
    *parents, last = path
    level: Any = result
    for depth, name in enumerate(parents, start=1):
        level = level.setdefault(name, _Nested())
        if not isinstance(level, _Nested):
            raise SettingError(
                prefix + ".".join(path),
                f"nests below {prefix}{'.'.join(path[:depth])}, which also has a "
                "value; give one or the other",
            )
    level[last] = value


class _Nested(dict[str, Any]):
    """A dictionary made of dotted keys, told apart from one that was a value."""
