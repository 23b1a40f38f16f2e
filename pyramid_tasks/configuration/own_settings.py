"""The settings of this package itself, which begin with ``pyramid_tasks.``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..coercion import check_type, coerce, displayed
from ..exceptions import SettingError, UnknownSetting, near_names
from .load import report_setting, reporting

_PREFIX = "pyramid_tasks."

#: The settings that are numbers, without their prefix, and their defaults.
NUMBERS = {
    "delivery_timeout": 2.0,
    "outbox_lease": 5.0,
    "outbox_max_attempts": 5.0,
    "inbox_keep": 7 * 24 * 3600.0,
    "max_deliveries": 5.0,
}

#: The setting that says what sends committed rows.
SEND_KEY = f"{_PREFIX}outbox_send"

#: The settings that are true or false, without their prefix.
BOOLEANS = ("gc_freeze", "inbox")

#: The settings without their prefix.
OWN_SETTINGS = (
    *("base_url", "config_uri", "context", "delivery", "outbox_schema", "outbox_send"),
    *BOOLEANS,
    *NUMBERS,
)


def check_own_settings(settings: Mapping[str, Any]) -> None:
    """Report what is wrong with the settings that begin with ``pyramid_tasks.``.

    Args:
        settings: The settings of a Pyramid application.
    """
    for key in settings:
        name = key.removeprefix(_PREFIX)
        if name != key and name not in OWN_SETTINGS:
            nearest = near_names(name, OWN_SETTINGS)
            hint = _PREFIX + nearest[0] if nearest else None
            problem = "is not a setting of pyramid_tasks."
            report_setting(UnknownSetting(key, problem, hint))
    for name in NUMBERS:
        with reporting():
            number_setting(settings, name)
    for name in BOOLEANS:
        with reporting():
            _check_boolean(settings, name)
    send = settings.get(SEND_KEY, "thread")
    if send not in ("thread", "request", "relay"):
        problem = f"= {send} is not one of thread, request and relay."
        report_setting(SettingError(SEND_KEY, problem))
    with reporting():
        schema_names(settings)


def schema_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the schemas of the setting ``pyramid_tasks.outbox_schema``.

    Raises:
        SettingError: The value is not a list of names.
    """
    return names_setting(settings, "outbox_schema", "a schema or a list of schemas")


def names_setting(
    settings: Mapping[str, Any], name: str, expected: str
) -> tuple[str, ...]:
    """Return the names in a setting, each once.

    Args:
        settings: The settings of a Pyramid application.
        name: The setting without its prefix ``pyramid_tasks.``.
        expected: A description of the right values, for messages.

    Raises:
        SettingError: The value is not a list of names.
    """
    key = _PREFIX + name
    names = coerce(key, settings.get(key), "list") or ()
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) and name for name in names
    ):
        raise SettingError(key, f"= {displayed(key, names)} is not {expected}.")
    return tuple(dict.fromkeys(names))


def _check_boolean(settings: Mapping[str, Any], name: str) -> None:
    key = _PREFIX + name
    value = coerce(key, settings.get(key, False), "bool")
    try:
        check_type(key, value or False, "bool")
    except ValueError as error:
        raise SettingError(key, str(error)) from None


def number_setting(settings: Mapping[str, Any], name: str) -> float:
    """Return one of the settings in :data:`NUMBERS`, or its default.

    Args:
        settings: The settings of a Pyramid application.
        name: The setting without its prefix ``pyramid_tasks.``.

    Raises:
        SettingError: The value is not a positive number.
    """
    key = _PREFIX + name
    value = settings.get(key, NUMBERS[name])
    try:
        check_type(key, value, "float")
        number = float(value)
    except (TypeError, ValueError):
        raise SettingError(key, f"= {value} is not a number.") from None
    if not 0 < number < math.inf:  # false for nan too
        raise SettingError(key, f"= {value} must be more than 0, and finite.")
    return number
