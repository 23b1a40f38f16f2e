"""What a load in progress tells ``includeme``, and what it learns from it.

The loaders start an application without knowing how it wraps itself; the Celery
application is found by watching which one is created meanwhile. A check of a
configuration goes on after a problem, where a load ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError

from ..exceptions import PyramidTasksError
from ..settings import raise_or_log

if TYPE_CHECKING:
    import logging

    from celery import Celery
    from pyramid.config import Configurator
    from pyramid.registry import Registry

    from ..exceptions import SettingError

_Directive = TypeVar("_Directive", bound=Callable[..., None])


@dataclass
class Load:
    """An application being loaded for a worker.

    Attributes:
        settings: The Celery settings of the worker, which win over those of the
            application.
        created: The Celery applications created so far, with their registries.
        problems: In a check, the problems found so far; otherwise the first is raised.
    """

    settings: dict[str, Any]
    created: list[tuple[Celery, Registry]] = field(default_factory=list)
    problems: list[Exception] | None = None


_current: ContextVar[Load | None] = ContextVar("pyramid_tasks.load", default=None)


def current_load() -> Load | None:
    """Return the load that this code runs in, or ``None`` in a web process."""
    return _current.get()


@contextmanager
def begin_load(settings: dict[str, Any]) -> Iterator[Load]:
    """Watch the applications that are created inside the ``with`` block."""
    with _as_current(Load(settings, problems=current_problems())) as load:
        yield load


@contextmanager
def checking() -> Iterator[list[Exception]]:
    """Collect the problems of what is loaded inside the ``with`` block.

    One that was found where a directive was called is a
    ``ConfigurationExecutionError``, which says where.
    """
    problems: list[Exception] = []
    with _as_current(Load({}, problems=problems)):
        yield problems


def current_problems() -> list[Exception] | None:
    """Return the problems that the check in progress has found, if one is."""
    load = current_load()
    return None if load is None else load.problems


@contextmanager
def reporting(info: Any = None, *also: type[Exception]) -> Iterator[None]:
    """Leave a mistake in the configuration to the check in progress, if one is.

    Args:
        info: Where a directive was called: its ``config.action_info``.
        also: Errors that are mistakes here, beside Pyramid's and this package's.
    """
    try:
        yield
    except (ConfigurationError, PyramidTasksError, *also) as error:
        problems = current_problems()
        if problems is None:
            raise
        if info is not None:
            error = ConfigurationExecutionError(type(error), error, info)
        problems.append(error)


def report(problem: Exception) -> None:
    """Raise a mistake in the configuration, or leave it to the check in progress."""
    with reporting():
        raise problem


def report_setting(problem: SettingError) -> None:
    """Raise or log a mistake in the settings, or leave it to the check in progress."""
    problems = current_problems()
    if problems is None:
        raise_or_log(problem)
    else:
        problems.append(problem)


def reporting_directive(directive: _Directive) -> _Directive:
    """Have a directive leave its mistakes to the check in progress, if one is."""

    @wraps(directive)
    def report(config: Configurator, *args: Any, **kwargs: Any) -> None:
        with reporting(config.action_info):
            directive(config, *args, **kwargs)

    return cast("_Directive", report)


def warn(logger: logging.Logger, problem: Exception) -> None:
    """Log what a worker can live with, or leave it to the check in progress."""
    problems = current_problems()
    if problems is None:
        logger.warning("%s", problem)
    else:
        problems.append(problem)


@contextmanager
def _as_current(load: Load) -> Iterator[Load]:
    token = _current.set(load)
    try:
        yield load
    finally:
        _current.reset(token)
