"""Every problem of an application, found while it is loaded and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from pyramid.exceptions import ConfigurationExecutionError

from .._celery import SETTING_TYPES
from ..configuration.load import checking
from ..configuration.unknown_settings import meant_setting
from ..exceptions import LoadError, PyramidTasksError, SettingError, UnknownSetting
from ..loaders.errors import explain
from ..loaders.opening import open_app
from ..loaders.protocol import find_loader
from ..settings import known_name
from .checks import check_app

if TYPE_CHECKING:
    from celery import Celery

Problem = dict[str, str | None]


def find_problems(
    config_uri: str,
    variables: dict[str, str],
    ignore: Sequence[str] = (),
    then: Callable[[Celery], object] | None = None,
) -> list[Problem]:
    """Load an application as a worker does, and return all its problems.

    Args:
        config_uri: As for :func:`pyramid_tasks.loaders.get_celery_app`.
        variables: Variables for ``%(variable)s`` in the file.
        ignore: Glob patterns of settings that Celery need not know. Default, none.
        then: A function that is called with the application, if it can be loaded with
            the settings as they are. Default, none.

    Returns:
        For each problem its ``kind``, which is the name of an error, its ``message``,
        and the place ``where`` it is, or ``None`` if the message has the place.
    """
    app = None
    with checking() as problems:
        try:
            app = open_app(config_uri, variables=variables)
            check_app(app, find_loader(config_uri).get_sections(), config_uri)
        except SystemExit:
            message = f"{config_uri}: the application ended the process as it loaded."
            problems.append(LoadError(message, config_uri))
        except Exception as error:  # noqa: BLE001 the application's own, of any kind
            problems.append(_as_problem(error, config_uri))
    found: list[Problem] = []
    for problem in problems:
        described = _describe(problem)
        # A load reads some settings twice.
        if described not in found and not _is_ignored(problem, ignore):
            found.append(described)
    # A wrong setting has been replaced, to find the problems behind it.
    is_as_set = all(type(problem) is not SettingError for problem in problems)
    if then is not None and app is not None and is_as_set:
        then(app)
    return found


def _as_problem(error: Exception, config_uri: str) -> Exception:
    """Return the problem that ended the load, and print an unexpected traceback."""
    cause = error.evalue if isinstance(error, ConfigurationExecutionError) else error
    if isinstance(cause, PyramidTasksError):
        return error
    return LoadError(explain(error, config_uri), config_uri)


def _describe(problem: Exception) -> Problem:
    where = None
    if isinstance(problem, ConfigurationExecutionError):
        info: Any = problem.info
        where = f"{info.file}:{info.line}" if hasattr(info, "line") else str(info)
        problem = problem.evalue
    message = str(problem)
    if (
        isinstance(problem, UnknownSetting)
        and not problem.key.startswith("pyramid_tasks")
        and (glob := _glob_of_plugin(problem.key))
    ):
        message += f" Leave the setting of a plugin out with --ignore '{glob}'."
    if isinstance(problem, SettingError) and problem.source:
        where = problem.source
        message = message.removeprefix(f"{where}: ")
    return {"kind": type(problem).__name__, "message": message, "where": where}


def _is_ignored(problem: Exception, ignore: Sequence[str]) -> bool:
    return isinstance(problem, UnknownSetting) and any(
        fnmatch(problem.key.removeprefix("celery."), glob) for glob in ignore
    )


def _glob_of_plugin(key: str) -> str | None:
    """Return a pattern for the settings of the plugin that a setting may be of."""
    name = key.removeprefix("celery.").partition(".")[0]
    prefix = name.partition("_")[0] + "_"
    if (
        "_" not in name
        or not name.islower()
        or known_name(name)
        or meant_setting(key)
        or any(each.startswith(prefix) for each in SETTING_TYPES)
    ):
        return None
    return f"{prefix}*"
