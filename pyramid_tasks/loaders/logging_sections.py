"""The mistakes in the logging sections of an ini: the section and the key.

The errors of ``logging.config`` name neither. This code runs only after an error, or if
the ini has logging sections.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from configparser import ConfigParser
from typing import Any

from ..configuration.importable import import_symbol
from ..configuration.kinds import near
from ..configuration.values import check_fields
from ..exceptions import near_names

_NAMESPACE = vars(logging)
_CLASSES = {
    name: name
    for name in _NAMESPACE
    if name.endswith(("Handler", "Formatter")) and not name.startswith("_")
}

#: The kinds of sections, the first part of their names, and the keys they can have.
_KINDS = {
    "formatters": ("formatter_", "format datefmt style validate class defaults"),
    "handlers": ("handler_", "class level formatter args kwargs target"),
    "loggers": ("logger_", "level handlers propagate qualname channel parent"),
}
_RAW = {"format", "datefmt", "style"}
_COMMA = "has a comma too many."


def find_mistake(parser: ConfigParser) -> str | None:
    """Return a sentence about the first mistake, with the section and the key."""
    mistakes = (f"[{section}] {key} {what}" for section, key, what in _mistakes(parser))
    return next(mistakes, None)


def find_misspelt(parser: ConfigParser) -> Iterator[str]:
    """Yield a sentence for each name that nobody knows, but that is nearly a known one.

    A key that is near to no other may be for a formatter or a handler of a package, and
    a class may have fields of its own.
    """
    for prefix, keys in _KINDS.values():
        known = keys.split()
        for section in parser.sections():
            if section.startswith(prefix):
                for key in parser[section].keys() - parser.defaults().keys() - {*known}:
                    for name in near_names(key, known):
                        yield f"[{section}] {key}: did you mean {name}?"
                if "class" not in parser[section]:
                    try:
                        check_fields(parser[section].get("format", "", raw=True))
                    except ValueError as error:
                        yield f"[{section}] format {error}"


def _mistakes(parser: ConfigParser) -> Iterator[tuple[str, str, str]]:
    names: dict[str, list[str]] = {}
    for kind, (prefix, _) in _KINDS.items():
        if not parser.has_option(kind, "keys"):
            yield kind, "keys", "is missing."
        names[kind] = _words(parser.get(kind, "keys", fallback=""))
        for name in names[kind]:
            if not parser.has_section(f"{prefix}{name}"):
                missing = f"has {name}: there is no [{prefix}{name}]."
                yield kind, "keys", missing if name else _COMMA
    if "root" not in names["loggers"]:
        yield "loggers", "keys", "has no root: add root, and [logger_root]."
    check = {"formatters": _formatter, "handlers": _handler, "loggers": _logger}
    for kind, (prefix, _) in _KINDS.items():
        for name in names[kind]:
            section = f"{prefix}{name}"
            items = {
                key: parser.get(section, key, raw=key in _RAW)
                for key in parser.options(section)
            }
            for key, problem in check[kind](items, names):
                yield section, key, problem
            if kind == "loggers" and name != "root" and "qualname" not in items:
                yield section, "qualname", "is missing."


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text else []


def _among(what: str, known: list[str]) -> str | None:
    if what in known:
        return None
    return f"= {what} is not one of {near(what, known)}"


def _level(items: dict[str, str]) -> Iterator[tuple[str, str]]:
    known = [name for name in logging.getLevelNamesMapping() if name != "WARN"]
    if "level" in items and (problem := _among(items["level"], [*known, "WARN"])):
        yield "level", problem


def _class(items: dict[str, str]) -> Any:
    """Return a class of the logging package, or one by its dotted name."""
    name = items["class"]
    try:
        return eval(name, _NAMESPACE)  # noqa: S307 as logging.config does
    except (AttributeError, NameError, SyntaxError):
        return import_symbol(name, _CLASSES)


def _formatter(items: dict[str, str], _: Any) -> Iterator[tuple[str, str]]:
    if items.get("class"):
        try:
            _class(items)
        except ValueError as error:
            yield "class", str(error)
    try:
        logging.Formatter(items.get("format"), style=items.get("style", "%"))  # type: ignore[arg-type]
    except ValueError as error:
        yield "format", f"cannot be used: {error}."


def _handler(
    items: dict[str, str], names: dict[str, list[str]]
) -> Iterator[tuple[str, str]]:
    if "class" not in items:
        yield "class", "is missing."
    try:
        factory = _class(items)
    except ValueError as error:
        yield "class", str(error)
    yield from _level(items)
    if items.get("formatter") and (
        problem := _among(items["formatter"], names["formatters"])
    ):
        yield "formatter", problem
    given = {}
    for key, default in ("args", "()"), ("kwargs", "{}"):
        try:
            given[key] = eval(items.get(key) or default, _NAMESPACE)  # noqa: S307 as logging.config does
        except AttributeError as error:
            yield key, f"cannot be read: {error}."
        except Exception as error:  # noqa: BLE001 the value can be any Python
            # The value may have a password, and the error a part of it.
            what = type(error).__name__
            yield key, f"cannot be read as Python ({what}): put each text in quotes."
    if items.get("target") and (problem := _among(items["target"], names["handlers"])):
        yield "target", problem
    try:
        factory(*given["args"], **given["kwargs"]).close()
    except Exception as error:  # noqa: BLE001 the handler can be any
        # Other errors than these have words of the value, which may be a password.
        has_no_secret = isinstance(error, (OSError, TypeError))
        what = str(error) if has_no_secret else type(error).__name__
        yield "args", f"cannot be used for {items['class']}: {what}."


def _logger(
    items: dict[str, str], names: dict[str, list[str]]
) -> Iterator[tuple[str, str]]:
    yield from _level(items)
    if "handlers" not in items:
        yield "handlers", "is missing; it may be empty."
    for handler in _words(items.get("handlers", "")):
        if problem := _among(handler, names["handlers"]):
            yield "handlers", problem if handler else _COMMA
    if not items.get("propagate", "1").strip().isdecimal():
        yield "propagate", f"= {items['propagate']} is not 0 or 1."
