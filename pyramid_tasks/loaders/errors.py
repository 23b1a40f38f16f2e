"""A mistake in a configuration file becomes one sentence, without a traceback.

An error in the application's own code keeps its class and its traceback.
"""

from __future__ import annotations

import configparser
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError

from pyramid.exceptions import ConfigurationExecutionError

from ..configuration.load import source_of_settings
from ..exceptions import LoadError, PyramidTasksError, SettingError

# The packages that read a file, and import the objects that the file names.
_READERS = ("paste.deploy", "plaster", "plaster_pastedeploy", "pyramid_tasks.loaders")
# The packages that the readers call. Applications call them as well.
_HELPERS = ("codecs", "configparser", "importlib", "importlib_metadata", "logging")


@contextmanager
def setting_source(source: str) -> Iterator[None]:
    """Add the place of a setting to an error about the setting."""
    try:
        with source_of_settings(source):
            yield
    except ConfigurationExecutionError as error:
        # The settings of an application are read at its commit, and Pyramid wraps an
        # error of the commit.
        if not isinstance(error.evalue, SettingError):
            raise
        error.evalue.source = error.evalue.source or source
        raise error.evalue from error
    except SettingError as error:
        error.source = error.source or source
        raise


@contextmanager
def plain_errors(filename: str, *readers: str) -> Iterator[None]:
    """Turn an error about a file into a sentence.

    An error that the application raised passes.

    Args:
        filename: The file, for messages.
        readers: More modules that read the file.

    Raises:
        LoadError: The error was about the file.
    """
    try:
        yield
    except PyramidTasksError:
        raise
    except Exception as error:
        if not _raised_by_reader(error, (*_READERS, *readers)):
            raise
        # The broken file may be one that use = config:... includes.
        filename = getattr(error, "source", None) or filename
        place = getattr(error, "place", filename)
        raise LoadError(f"{place}: {_describe(error)}", filename) from error


def explain(error: Exception, config_uri: str) -> str:
    """Return the message for an error that ended a load.

    If the error is one of the application's own code, its traceback is printed.
    """
    info = getattr(error, "info", None)
    told = error.evalue if isinstance(error, ConfigurationExecutionError) else error
    if isinstance(told, PyramidTasksError):
        return f"{told}\n  in:\n  {info}" if info else str(told)
    traceback.print_exception(error)
    return (
        f"{config_uri}: the application could not be loaded; see the traceback above."
    )


def _raised_by_reader(error: BaseException, readers: tuple[str, ...]) -> bool:
    """Whether the file is at fault, and not the code of the application.

    The application may read files itself, with the same helpers. But if a composite
    factory of the application asks for a section in vain, the file is at fault.
    """
    if isinstance(error, SyntaxError) and error.filename != "<string>":
        return False  # the mistake is in a module, not in a Python value of the file
    modules = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if not _is_in(module, _HELPERS):
            modules.append(module)
    if isinstance(error, LookupError):
        modules = modules[-1:]
    return bool(modules) and all(_is_in(module, readers) for module in modules)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _describe(error: Exception) -> str:  # noqa: C901, PLR0911 one for each case
    """Return a message without the values of the file, which may be secret."""
    match error:
        case configparser.InterpolationMissingOptionError():
            return (
                f"[{error.section}] {error.option} uses %({error.reference})s, which "
                f"nothing sets; pass --ini-var {error.reference}=VALUE (to ptasks, "
                f"{error.reference}=VALUE), or set it in [DEFAULT]."
            )
        case configparser.InterpolationError(option="__file__" | "here"):
            return (
                "the path of the file has a percent sign, which PasteDeploy cannot "
                "read; give the file or the folder another name."
            )
        case configparser.InterpolationError():
            return (
                f"[{error.section}] {error.option} cannot be read; a percent sign in "
                "a value must be doubled: %%."
            )
        case configparser.MissingSectionHeaderError(line=line) if "[" in line:
            return "the file begins with a byte order mark; save it without one."
        case UnicodeDecodeError():
            return (
                f"the byte {error.object[error.start]:#x} is none of the encoding "
                f"{error.encoding}, in which this process reads files; save the file "
                f"in {error.encoding}."
            )
        case PackageNotFoundError():
            return f"no distribution {error.name} is installed."
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
