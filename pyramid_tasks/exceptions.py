"""The errors of this package, all below :class:`PyramidTasksError`.

Each is also the Pyramid, Celery or built-in error that callers already catch, and
carries what it talks about as attributes.
"""

from __future__ import annotations

from celery.exceptions import NotRegistered
from kombu.exceptions import OperationalError
from pyramid.exceptions import ConfigurationError


class PyramidTasksError(Exception):
    """The root of every error this package raises."""


class SettingError(PyramidTasksError, ConfigurationError):
    """A setting that cannot be used.

    Attributes:
        key: The setting as it stands in the configuration, with its prefix.
        problem: What is wrong with it, and what to write instead.
        source: The file and section it came from, where known.
    """

    def __init__(self, key: str, problem: str, source: str | None = None) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem
        self.source = source

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        return f"{where}{self.key} {self.problem}"


class UnknownSetting(SettingError):
    """A setting that nobody knows: a slip, or one of a plugin of Celery.

    Attributes:
        nearest: The known setting closest to it, or ``None``.
    """

    def __init__(self, key: str, problem: str, nearest: str | None) -> None:
        hint = f" Did you mean {nearest}?" if nearest else ""
        super().__init__(key, problem + hint)
        self.nearest = nearest


class TaskError(PyramidTasksError, ConfigurationError):
    """A function that cannot be a task as it was registered."""


class ForkSafetyError(PyramidTasksError, ConfigurationError):
    """What was handed over to be disposed of in forked processes cannot be."""


class TaskNotRegistered(PyramidTasksError, NotRegistered):
    """A task was named that the application has not registered.

    Attributes:
        task: What was given: a name, a function or a task.
        nearest: The registered name closest to it, or ``None``.
    """

    def __init__(self, task: object, nearest: str | None = None) -> None:
        super().__init__(task, nearest)
        self.task = task
        self.nearest = nearest

    def __str__(self) -> str:
        hint = (
            f"Did you mean {self.nearest!r}?"
            if self.nearest
            else "Register it with config.register_task(), or decorate it with "
            "@pyramid_tasks.task and config.scan() its module."
        )
        given = self.task
        if qualname := getattr(given, "__qualname__", None):
            given = f"{given.__module__}.{qualname}"
        return f"No task {given!r} is registered in this application. {hint}"

    __repr__ = Exception.__repr__


class AmbiguousTask(PyramidTasksError, LookupError):
    """A function was given that is registered under several names.

    Attributes:
        task: The function, or its dotted name.
        names: The names it is registered under.
    """

    def __init__(self, task: object, names: list[str]) -> None:
        super().__init__(task, names)
        self.task = task
        self.names = names

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.names))
        return f"{self.task!r} is registered under several names: {names}. Give one."


class DeferError(PyramidTasksError, TypeError):
    """What was given cannot be deferred as it is."""


class BrokerUnavailable(PyramidTasksError, OperationalError):
    """The broker cannot be reached, so the transaction was aborted.

    Attributes:
        broker: The URL of the broker, without its password.
    """

    def __init__(self, broker: str, reason: object) -> None:
        super().__init__(
            f"The broker {broker} cannot be reached ({reason}); the transaction that "
            "defers a task is aborted, as its task could not be sent."
        )
        self.broker = broker


class ResultNotReady(PyramidTasksError, RuntimeError):
    """The result was asked for of a task that has not been sent yet.

    Attributes:
        task_id: The id of the task.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"The task {task_id} is sent when the transaction commits, so waiting for "
            "its result before that would never end. Commit first, or defer it with "
            "delivery='immediate'. In a test that captures tasks, run it first."
        )
        self.task_id = task_id


class OutboxError(PyramidTasksError, RuntimeError):
    """The outbox cannot be used as the application is set up."""


class OutboxTableMissing(OutboxError, LookupError):
    """The database has no table for the outbox.

    Attributes:
        table: The name of the table.
        database: The URL of the database, without its password.
    """

    def __init__(self, table: str, database: str) -> None:
        super().__init__(
            f"The database {database} has no table {table}. Make it with celery -A "
            "pyramid_tasks.loaders --ini config.ini outbox create, or in a migration."
        )
        self.table = table
        self.database = database


class CaptureError(PyramidTasksError, RuntimeError):
    """What an application defers in a test cannot be captured, or not be run."""


class LoadError(PyramidTasksError, ConfigurationError, LookupError):
    """A configuration from which no Celery application could be loaded.

    Attributes:
        config_uri: The file, as it was given.
    """

    def __init__(self, message: str, config_uri: str) -> None:
        super().__init__(message)
        self.config_uri = config_uri


class ConfigFileNotFound(LoadError, FileNotFoundError):
    """The file that a config URI names does not exist."""
