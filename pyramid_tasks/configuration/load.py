"""The load in progress, and the mistakes that it finds.

A loader does not know how an application wraps itself. So the loader watches which
Celery application ``includeme`` creates during the load. A load ends at the first
mistake in the configuration; a check collects all mistakes.

A mistake in a setting names the file and the section, as far as they are known. A
loader says them. A web process is loaded by PasteDeploy, which tells the name of the
file to the application and not to its includes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError
from pyramid.registry import Introspectable

from ..exceptions import PyramidTasksError, SettingError
from ..settings import raise_or_log
from ._pastedeploy import find_section

if TYPE_CHECKING:
    import logging

    from celery import Celery
    from pyramid.config import Configurator
    from pyramid.registry import Registry

_Directive = TypeVar("_Directive", bound=Callable[..., None])


class Load:
    """An application being loaded for a worker.

    Attributes:
        settings: The Celery settings of the worker, which win over the application's
            settings.
        section: The file and the section of these settings, for messages.
        created: The Celery applications created so far, with their registries.
    """

    def __init__(self, settings: dict[str, Any], section: str | None = None) -> None:
        self.settings = settings
        self.section = section
        self.created: list[tuple[Celery, Registry]] = []


class _State:
    """What a loader or a check tells the code that runs inside it.

    Attributes:
        load: The load in progress, or ``None`` in a web process.
        problems: The problems that the check in progress has found so far, or ``None``
            if the first problem ends the load.
        source: The file and the section whose settings are read, if a loader says so.
    """

    def __init__(
        self,
        load: Load | None = None,
        problems: list[Exception] | None = None,
        source: str | None = None,
    ) -> None:
        self.load = load
        self.problems = problems
        self.source = source


_state: ContextVar[_State] = ContextVar(
    "pyramid_tasks.load",
    default=_State(),  # noqa: B039 nobody changes it
)


@contextmanager
def _with_state(**changes: Any) -> Iterator[None]:
    """Replace parts of the state inside the ``with`` block."""
    token = _state.set(_State(**{**vars(_state.get()), **changes}))
    try:
        yield
    finally:
        _state.reset(token)


def current_load() -> Load | None:
    """Return the load that this code runs in, or ``None`` in a web process."""
    return _state.get().load


@contextmanager
def begin_load(settings: dict[str, Any], section: str | None = None) -> Iterator[Load]:
    """Watch the applications that are created inside the ``with`` block."""
    load = Load(settings, section)
    with _with_state(load=load):
        yield load


@contextmanager
def checking() -> Iterator[list[Exception]]:
    """Collect the problems of the application that is loaded inside the block.

    A problem in the call of a directive is a ``ConfigurationExecutionError``, which
    knows the file and the line of the call.
    """
    problems: list[Exception] = []
    # What is checked is the application of a worker, whoever makes it.
    with _with_state(load=Load({}), problems=problems):
        yield problems


def source_of_settings(source: str) -> AbstractContextManager[None]:
    """Name the file and the section of the settings that are read inside the block."""
    return _with_state(source=source)


def find_source() -> str | None:
    """Return the file and the section whose settings are read, if they are known.

    This is for a mistake, or a warning, and no more, as it is slow.
    """
    return _state.get().source or find_section()


@contextmanager
def reporting(info: Any = None) -> Iterator[None]:
    """Hand a mistake in the configuration to the check in progress, or raise it.

    Args:
        info: The place where a directive was called: its ``config.action_info``.
    """
    try:
        yield
    except (ConfigurationError, PyramidTasksError) as error:
        if isinstance(error, SettingError):
            error.source = error.source or find_source()
        problems = _state.get().problems
        if problems is None:
            if isinstance(error, PyramidTasksError):
                error.info = error.info or info
            raise
        if info is not None:
            error = ConfigurationExecutionError(type(error), error, info)
        problems.append(error)


def report(problem: Exception) -> None:
    """Hand a mistake in the configuration to the check in progress, or raise it."""
    with reporting():
        raise problem


def report_setting(problem: SettingError) -> None:
    """Hand a mistake in the settings to the check in progress, or raise or log it."""
    problem.source = problem.source or find_source()
    problems = _state.get().problems
    if problems is None:
        raise_or_log(problem)
    else:
        problems.append(problem)


def is_told(key: str) -> bool:
    """Whether the check in progress has found a mistake in a setting."""
    problems = _state.get().problems or ()
    return any(getattr(problem, "key", None) == key for problem in problems)


def reporting_directive(directive: _Directive) -> _Directive:
    """Return a directive whose mistakes go to the check in progress."""

    @wraps(directive)
    def reported(config: Configurator, *args: Any, **kwargs: Any) -> None:
        with reporting(config.action_info):
            directive(config, *args, **kwargs)

    return cast("_Directive", reported)


class _Mistake(Introspectable):
    """Raises the mistake that an action has found, as it is."""

    error: Exception | None = None

    def register(self, *_: Any) -> None:
        if self.error is not None:
            raise self.error.with_traceback(None) from None


def check_at_commit(
    config: Configurator, name: object, check: Callable[[], object], order: int = 0
) -> None:
    """Call a function at the commit; its errors are about settings.

    Pyramid wraps an error of an action in one that names the call of a directive. No
    directive was called here, so the sentence about the setting stands alone.

    Args:
        config: The configurator.
        name: The discriminator of the action.
        check: The function.
        order: As for ``config.action``.
    """
    mistake = _Mistake("mistakes", name, "", "mistake")

    def act() -> None:
        try:
            with reporting():
                check()
        except PyramidTasksError as error:
            if not config.introspection:
                raise error from None  # the context shows the value
            mistake.error = error

    config.action(name, act, order=order, introspectables=(mistake,))


def warn(logger: logging.Logger, problem: Exception) -> None:
    """Hand a mistake that stops no worker to the check in progress, or log it."""
    problems = _state.get().problems
    if problems is None:
        logger.warning("%s", problem)
    else:
        problems.append(problem)
