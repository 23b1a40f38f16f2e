"""The settings of Celery that name something to import.

What is not there is a mistake in the setting. An error inside a module that is there
is one of the code, and passes.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import (
    cwd_in_path,
    load_extension_class_names,
    symbol_by_name,
)
from kombu.transport import TRANSPORT_ALIASES

from ..exceptions import TaskError, near_names
from .addresses import check_address, shown
from .kinds import did_you_mean

if TYPE_CHECKING:
    from pyramid.config import Configurator

_DOTTED = r"[\w.]+(:[\w.]+)?"
# The packages that look a name up. Below them, the code of the named module runs.
_RESOLVERS = {"_frozen_importlib", "importlib", "pyramid", "pyramid_tasks"}
_RESOLVERS |= {"pkg_resources"}  # of Pyramid 2.0


def check_modules(names: Iterable[Any]) -> None:
    """Find modules, without importing more than their parents.

    Raises:
        ValueError: There is no such module.
    """
    for name in names:
        with cwd_in_path():  # as Celery imports them
            if not isinstance(name, str) or not _is_there(name):
                raise ValueError(
                    f"names a module that is not there: {name!r}. Write the dotted "
                    "names of modules that Python can import."
                )


def check_symbol(name: Any, aliases: Mapping[str, str] | None = None) -> None:
    """Import a class or a function by its dotted name, or by an alias of it.

    Args:
        name: The name; anything but a string is taken for the thing itself.
        aliases: Shorter names that Celery knows.

    Raises:
        ValueError: There is no such thing.
    """
    if isinstance(name, str) and name not in (aliases or {}):
        import_symbol(name, aliases)


def import_symbol(name: str, aliases: Mapping[str, str] | None = None) -> Any:
    """Return a class or a function by its dotted name, as :func:`check_symbol`."""
    dotted = name.replace(":", ".")
    module, _, last = dotted.rpartition(".")
    if not module or not re.fullmatch(_DOTTED, name):
        known = f"one of {', '.join(sorted(aliases))}, or " if aliases else ""
        hint = did_you_mean(name, aliases or ())
        raise ValueError(f"= {name} is not {known}a dotted name.{hint}")
    try:
        with cwd_in_path():
            return symbol_by_name(name)
    except ModuleNotFoundError as error:
        if not _names(dotted, error.name):
            raise
        missing = f"there is no module {error.name}"
    except AttributeError as error:
        if error.name != last:
            raise
        missing = f"{module} has no {last}"
    raise ValueError(f"= {name} cannot be imported: {missing}.")


def maybe_dotted(config: Configurator, given: Any) -> Any:
    """Return what a directive was given, or what its dotted name stands for.

    Raises:
        TaskError: There is no such thing. An error inside the module passes.
    """
    try:
        return config.maybe_dotted(given)
    except (AttributeError, ImportError, LookupError, ValueError) as error:
        frames = traceback.walk_tb(error.__traceback__)
        names = [frame.f_globals.get("__name__", "") for frame, _ in frames]
        if any(name.partition(".")[0] not in _RESOLVERS for name in names):
            raise
        module, _, last = given.replace(":", ".").rpartition(".")
        hint = "Write the dotted name of something that Python can import."
        for near in near_names(last, vars(sys.modules.get(module, object))):
            hint = f"Did you mean {near}?"
        if "://" in given:  # with a password perhaps, which the error would show
            raise TaskError(f"{shown(given)!r} is no dotted name. {hint}") from None
        raise TaskError(f"{given!r} cannot be imported: {error}. {hint}") from None


def check_pool(value: Any) -> None:
    """Check the value of ``worker_pool``, as :func:`check_symbol` does."""
    from celery.concurrency import get_available_pool_names  # slow, for a web process

    check_symbol(value, dict.fromkeys(get_available_pool_names(), ""))
    if value in {"gevent", "eventlet"} and not find_spec(value):
        raise ValueError(f"= {value} needs a package: pip install {value}.")


def check_transport(value: Any) -> None:
    """Check the value of ``broker_transport``, as :func:`check_symbol` does."""
    check_symbol(value, TRANSPORT_ALIASES)


def check_result_backend(value: Any) -> None:
    """Check the value of ``result_backend``, as :func:`check_symbol` does."""
    check_address(value)
    if isinstance(value, str) and "://" not in value:
        extensions = load_extension_class_names("celery.result_backends")
        check_symbol(value, {**BACKEND_ALIASES, **dict(extensions)})


def check_scheduler(value: Any) -> None:
    """Check the value of ``beat_scheduler``, as :func:`check_symbol` does."""
    aliases = load_extension_class_names("celery.beat_schedulers")
    check_symbol(value, dict(aliases))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError as error:
        if not _names(name, error.name):
            raise
        return False
    except (ImportError, ValueError):  # a relative name; a module without a spec
        return not name.startswith(".") and bool(name)


def _names(dotted: str, module: str | None) -> bool:
    """Whether a dotted name belongs to a module, or to something inside the module."""
    return f"{dotted}.".startswith(f"{module}.")
