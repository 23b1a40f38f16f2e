"""A mistake in a configuration file becomes one sentence, without a traceback.

An error in the application's own code stays what it is.
"""

from __future__ import annotations

import configparser
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pyramid.exceptions import ConfigurationExecutionError

from ..configuration.load import current_problems
from ..exceptions import LoadError, PyramidTasksError, SettingError

# The code that reads a file and follows what it names...
_READERS = ("paste.deploy", "plaster", "plaster_pastedeploy", "pyramid_tasks.loaders")
# ...and what that calls to do so, which applications call as well.
_HELPERS = ("codecs", "configparser", "importlib", "importlib_metadata", "logging")


@contextmanager
def setting_source(source: str) -> Iterator[None]:
    """Say of an error about a setting where the setting stands."""
    problems = current_problems()
    found_before = len(problems or ())
    try:
        yield
    except ConfigurationExecutionError as error:
        # The settings of an application are read when it is committed, and Pyramid
        # wraps what is raised then.
        if not isinstance(error.evalue, SettingError):
            raise
        error.evalue.source = error.evalue.source or source
        raise error.evalue from error
    except SettingError as error:
        error.source = error.source or source
        raise
    finally:
        for problem in (problems or ())[found_before:]:
            if isinstance(problem, SettingError):
                problem.source = problem.source or source


@contextmanager
def plain_errors(filename: str) -> Iterator[None]:
    """Turn an error about a file, not one that its application raised, into a sentence.

    Raises:
        LoadError: It was about the file.
    """
    try:
        yield
    except PyramidTasksError:
        raise
    except Exception as error:
        if _raised_by_reader(error):
            # One that is included, by use = config:..., may be the broken one.
            filename = getattr(error, "source", None) or filename
            raise LoadError(f"{filename}: {_describe(error)}", filename) from error
        raise


def explain(error: Exception, config_uri: str) -> str:
    """Return what to tell a user of an error that ended a load.

    The traceback of one in the application's own code is printed.
    """
    if isinstance(error, PyramidTasksError):
        return str(error)
    if isinstance(error, ConfigurationExecutionError) and isinstance(
        error.evalue, PyramidTasksError
    ):
        return f"{error.evalue}\n  in:\n  {error.info}"
    traceback.print_exception(error)
    return (
        f"{config_uri}: the application could not be loaded; see the traceback above."
    )


def _raised_by_reader(error: BaseException) -> bool:
    """Whether the file is at fault, and not code of the application.

    The application may read files itself, with the same helpers. Only a section that
    its composite factory asks for in vain is the fault of the file all the same.
    """
    if isinstance(error, SyntaxError) and error.filename != "<string>":
        return False  # in a module that the file names, not in a value that is Python
    modules = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if not _is_in(module, _HELPERS):
            modules.append(module)
    if isinstance(error, LookupError):
        modules = modules[-1:]
    return bool(modules) and all(_is_in(module, _READERS) for module in modules)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _describe(error: Exception) -> str:  # noqa: PLR0911 one for each case
    """Return what is wrong, without the values in the file, which may be secret."""
    match error:
        case configparser.InterpolationMissingOptionError():
            return (
                f"[{error.section}] {error.option} uses %({error.reference})s, which "
                f"nothing sets; pass --ini-var {error.reference}=VALUE (to ptasks, "
                f"{error.reference}=VALUE), or set it in [DEFAULT]."
            )
        case configparser.InterpolationError():
            return (
                f"[{error.section}] {error.option} cannot be read; a percent sign in "
                "a value must be doubled: %%."
            )
        case configparser.MissingSectionHeaderError():
            return f"line {error.lineno} stands before the first [section]."
        case configparser.ParsingError():
            lines = ", ".join(str(number) for number, _ in error.errors)
            return f"line {lines} is neither a [section] nor key = value."
        case FileNotFoundError():
            return f"there is no file {error.filename}."
        case KeyError():
            return f"{error} is missing."
        case RecursionError():
            return "a section inherits from itself by use = ..."
    return f"{str(error).rstrip('.')}." if str(error) else repr(error)
