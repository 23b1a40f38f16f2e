"""A string of an ini becomes a value of the type that Celery declares for a setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from numbers import Integral, Number
from typing import Any

from celery.app.utils import HIDDEN_SETTINGS
from pyramid.settings import falsey, truthy

from .exceptions import SettingError


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


def to_bool(value: str) -> bool:
    """Read a boolean as Pyramid does, and refuse other words."""
    word = value.strip().lower()
    if word in truthy:
        return True
    if word in falsey or not word:
        return False
    raise ValueError(value)


def _to_list(value: str) -> list[Any]:
    if value.lstrip().startswith("["):
        return list(json.loads(value))
    return value.replace(",", " ").split()


def _to_dict(value: str) -> dict[str, Any]:
    loaded = json.loads(value)
    if not isinstance(loaded, dict):
        raise TypeError(value)
    return loaded


def _to_bool_or_dict(value: str) -> bool | dict[str, Any]:
    return _to_dict(value) if value.lstrip().startswith("{") else to_bool(value)


def _to_int_or_auto(value: str) -> int | str:
    return value if value == "auto" else int(value)


#: A type as Celery names it: what to call it in a message, and how to read it.
TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "any": ("JSON or a string", coerce_nested),
    "bool": ("a boolean (true or false)", to_bool),
    "bool or dict": ("a boolean or a JSON object", _to_bool_or_dict),
    "bytes": ("a string", str.encode),
    "dict": ('a dictionary (a JSON object such as {"key": "value"})', _to_dict),
    "float": ("a number (float)", float),
    "int": ("a whole number (int)", int),
    "int or auto": ("a whole number (int), or auto", _to_int_or_auto),
    "list": ("a list (words, or a JSON array)", _to_list),
    "string": ("a string", str),
    "tuple": ("a list (words, or a JSON array)", _to_list),
}
#: The Python types that YAML, TOML or code may have for such a value.
_IN_PYTHON: dict[str, tuple[type, ...]] = {
    "bool or dict": (Mapping,),
    "dict": (Mapping,),
    "float": (Number, timedelta),
    "int": (Integral,),
    "int or auto": (Integral,),
    "list": (list, tuple, set, frozenset),
    "tuple": (list, tuple, set, frozenset),
}
NESTING = {"any", "bool or dict", "dict"}


def coerce(key: str, value: Any, expected: str) -> Any:
    """Return a value as one of a type; a value that is not a string stays as it is.

    Args:
        key: The setting as the configuration has it, for messages.
        value: The value.
        expected: A key of :data:`TYPES`.

    Raises:
        SettingError: The value is not of the type.
    """
    if not isinstance(value, str):
        return value
    if value.strip() == "null" and expected != "string":
        return None
    description, read = TYPES[expected]
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        detail = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        if value.strip().lower() == "none":
            detail = "; write null for no value"
        # Not "from error": what Python says of a number shows the value.
        raise SettingError(
            key, f"= {displayed(key, value)} is not {description}{detail}"
        ) from None


def check_type(key: str, value: Any, expected: str) -> None:
    """Check a value that was no string in the configuration, such as one of YAML.

    Args:
        key: The setting, for messages.
        value: The value.
        expected: A key of :data:`TYPES`.

    Raises:
        ValueError: The value is not of the type.
    """
    if isinstance(value, str):
        return  # coerce() has read it
    is_right = isinstance(value, _IN_PYTHON.get(expected, object))
    if expected.startswith("bool"):
        is_right = value in (True, False) or (expected != "bool" and is_right)
    elif expected.startswith(("int", "float")):
        is_right = is_right and not isinstance(value, bool)
    elif expected == "string":  # code may give a class, or the like
        is_right = not isinstance(value, (Number, date))
    if not is_right:
        hint = ": put it in quotes" if expected == "string" else ""
        problem = f"= {displayed(key, value)} is not {TYPES[expected][0]}{hint}."
        raise ValueError(problem)


def displayed(key: str, value: object) -> str:
    """Return a value for a message, without what may be a secret."""
    text = f"{key} {value}"
    if HIDDEN_SETTINGS.search(text):
        return "********"
    return repr(value)
