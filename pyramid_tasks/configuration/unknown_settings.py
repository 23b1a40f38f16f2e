"""The settings that nobody reads, but whose names are nearly names of settings.

An application has the settings of many packages. So a name counts only if its prefix is
nearly one of ours and its rest is a setting, or if it is one that only Celery has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..exceptions import UnknownSetting, near_names
from ..settings import known_name
from .own_settings import OWN_SETTINGS

#: The prefixes of settings, and how similar a misspelt one is. Packages for tasks may
#: have a prefix that begins with ours.
_PREFIXES = {"celery": 0.8, "pyramid_tasks": 0.9}
#: The beginnings of names that only Celery has.
_OF_CELERY = ("beat_", "broker_", "celery", "result_", "task_", "worker_")


def unknown_settings(settings: Mapping[str, Any]) -> Iterator[UnknownSetting]:
    """Yield an error for each setting that is nearly one, which is not given.

    Args:
        settings: The settings of a Pyramid application.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _nested(key, value)
        nearest = meant_setting(key)
        if nearest and nearest not in settings:
            problem = "is read neither by Celery nor by pyramid_tasks."
            yield UnknownSetting(key, problem, nearest)


def _nested(key: str, value: Mapping[Any, Any]) -> Iterator[UnknownSetting]:
    """Yield an error for a section below a section, as YAML and TOML can have it."""
    for prefix, cutoff in _PREFIXES.items():
        known = [found for name in value if (found := _known(prefix, str(name)))]
        is_ours = key == prefix or (known and near_names(key, [prefix], cutoff=cutoff))
        if is_ours and value:
            example = [*known, f"{prefix}.KEY"][0]
            problem = (
                f'nests its keys, so that nobody reads them. Write each in full: "'
                f'{example}".'
            )
            yield UnknownSetting(key, problem, None)


def meant_setting(key: str) -> str | None:
    """Return the setting that a key is nearly the name of, if it is not one."""
    if key.startswith(tuple(f"{prefix}." for prefix in _PREFIXES)):
        return None
    if key.lower().startswith(_OF_CELERY) and (found := _known("celery", key)):
        return found
    for separator in re.finditer(r"[._:-]\s*", key):
        given, rest = key[: separator.start()].lower(), key[separator.end() :]
        for prefix, cutoff in _PREFIXES.items():
            found = _known(prefix, rest)
            if found and near_names(given, [prefix], cutoff=cutoff):
                return found
    return None


def _known(prefix: str, key: str) -> str | None:
    """Return a setting with its prefix, if a key is one without its prefix."""
    if prefix == "pyramid_tasks":
        return f"{prefix}.{key.lower()}" if key.lower() in OWN_SETTINGS else None
    name, dot, nested = key.partition(".")
    known = known_name(name)
    return f"{prefix}.{known}{dot}{nested}" if known else None
