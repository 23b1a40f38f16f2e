"""Strings of an ini file become the configuration of Celery; pure functions.

The type of a setting is the one that the installed Celery declares, so that this
module never falls behind it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import chain
from typing import Any

from celery.app.utils import HIDDEN_SETTINGS

from ._celery import NEW_SETTING_NAMES, SETTING_TYPES, has_daemon_options
from .coercion import NESTING, TYPES, coerce
from .exceptions import SettingError, UnknownSetting, near_names

logger = logging.getLogger(__name__)

Settings = dict[str, Any]

#: The settings of well-known schedulers for beat, by the module of the scheduler.
_OF_SCHEDULERS = {
    "redbeat": {
        *("redbeat_key_prefix", "redbeat_redis_url", "redbeat_redis_use_ssl"),
        *("redbeat_redis_options", "redbeat_lock_key", "redbeat_lock_timeout"),
    },
    "celery_sqlalchemy_scheduler": {"beat_dburi"},
    "sqlalchemy_celery_beat": {"beat_dburi", "beat_schema", "beat_engine_options"},
}

#: Settings for the options of a daemon, which Celery's table lacks.
_OF_DAEMONS = "(worker|beat|events)_(executable|gid|logfile|pidfile|uid|umask)"
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
    known setting. One that is nearly a password or a key is left out. Celery lists its
    settings in `Configuration and defaults
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
    settings = {str(key): value for key, value in settings.items()}  # YAML has others
    # The shortest keys first, so that a value is met before what nests below it. Of
    # several spellings of a setting, Celery's own comes last.
    keys = sorted(settings, key=lambda key: (key.count("."), key == _plain(key), key))
    last = {_plain(key): key for key in keys}
    for key in keys:
        try:
            if (wins := last[_plain(key)]) != key:
                problem = f"is {prefix}{wins} in another spelling, which wins: drop it."
                raise UnknownSetting(prefix + key, problem, None)
            _add(result, key, settings, prefix, report)
        except SettingError as error:
            report(error)
    return result


def _plain(key: str) -> str:
    """Return a key with the name that Celery has today."""
    name, dot, nested = key.partition(".")
    return f"{known_name(name) or name}{dot}{nested}"


def _add(
    result: Settings, key: str, settings: Mapping[str, Any], prefix: str, report: Report
) -> None:
    given, *nested = key.split(".")
    if given == "celery" and nested and not prefix:
        problem = "is no setting in [celery:NAME], where the prefix is left out."
        report(UnknownSetting(key, problem, ".".join(nested)))
        return
    name = known_name(given)
    expected = SETTING_TYPES[name] if name else "any"
    if expected not in TYPES:  # of a later version of Celery
        expected = "any"
    if name is None:
        name = given
        near = near_names(name.lower(), SETTING_TYPES, cutoff=0.9)
        if near and HIDDEN_SETTINGS.search(near[0]):
            problem = (
                "is not a setting that Celery knows; it is left out, since "
                "celery report would show it."
            )
            report(UnknownSetting(prefix + key, problem, prefix + near[0]))
            return
        if not (_is_known_to_daemon(name) or _is_known_to_scheduler(name)):
            problem, nearest = _unknown(key)
            hint = prefix + nearest if nearest else None
            report(UnknownSetting(prefix + key, problem, hint))
    if not nested:
        result[name] = coerce(prefix + key, settings[key], expected)
        return
    if expected not in NESTING:
        raise SettingError(
            prefix + key,
            f"nests below {prefix}{name}, which is not a dictionary but "
            f"{TYPES[expected][0]}; give {prefix}{name} a value instead",
        )
    value = coerce(prefix + key, settings[key], "any")
    _nest(result, [name, *nested], value, prefix)


def known_name(given: str) -> str | None:
    """Return the name that Celery has today for a setting, or ``None``.

    Older packages for Pyramid ignore the case of a name.

    Args:
        given: The name, without a prefix.
    """
    if given in SETTING_TYPES:
        return given
    if given in NEW_SETTING_NAMES:
        return str(NEW_SETTING_NAMES[given])
    lower = given.lower()
    return lower if lower in SETTING_TYPES else None


def _is_known_to_scheduler(name: str) -> bool:
    return any(
        name in names and find_spec(module) for module, names in _OF_SCHEDULERS.items()
    )


def _is_known_to_daemon(name: str) -> bool:
    return bool(re.fullmatch(_OF_DAEMONS, name)) and has_daemon_options()


def _unknown(key: str) -> tuple[str, str | None]:
    """Return what is wrong with an unknown setting, and the setting it is near to."""
    if key == "USE_CELERYCONFIG":
        problem = (
            "is not a setting: no celeryconfig.py is read. Write the settings of that "
            "module here."
        )
        return problem, None
    if key.startswith("pyramid_tasks."):
        return "is read in the section of the application, and not here.", None
    problem = (
        "is not a setting that this version of Celery knows; it is passed on as it is."
    )
    parts = key.lower().split(".")
    # Dots nest, but celery.broker.url is meant to be celery.broker_url.
    for count in range(len(parts), 1, -1):
        name = "_".join(parts[:count])
        if name in SETTING_TYPES:
            return problem, ".".join([name, *parts[count:]])
    for module, names in _OF_SCHEDULERS.items():
        if key in names:
            return f"is a setting of {module}, which is not installed.", None
    known = {*SETTING_TYPES, *chain(*_OF_SCHEDULERS.values())}
    for name, rest in (parts[0], parts[1:]), ("_".join(parts), []):
        for near in near_names(name, known):
            return problem, ".".join([near, *rest])
    return problem, None


def merge_settings(base: Settings, override: Settings) -> Settings:
    """Return ``base`` with ``override`` on top.

    Dictionaries merge key by key. Routes come before the routes of ``base``, whatever
    their form, as Celery takes the first pattern that fits. An entry of a schedule that
    names its task replaces an entry, as its arguments belong to its task.

    Args:
        base: Settings of Celery, which the function leaves as they are.
        override: The settings that win.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if not isinstance(value, dict) or not below:
            merged[key] = value
        elif isinstance(below, dict):
            merged[key] = both = merge_settings(below, value)
            if key == "task_routes":
                merged[key] = {name: both[name] for name in (*value, *below)}
            elif key == "beat_schedule":
                for name, entry in value.items():
                    if isinstance(entry, dict) and "task" in entry:
                        both[name] = entry
        elif key == "task_routes":
            others = below if isinstance(below, (list, tuple)) else [below]
            merged[key] = [value, *others]
        else:
            merged[key] = value
    return merged


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
