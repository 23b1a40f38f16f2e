"""The errors of this package, all below :class:`PyramidTasksError`.

Each error is also the Pyramid, Celery or built-in error that callers already catch, and
carries the things that it talks about as attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from celery.exceptions import NotRegistered
from kombu.exceptions import OperationalError
from pyramid.exceptions import ConfigurationError

# The args of an error are the arguments of its class, and __str__ makes the message.
# Otherwise neither pickle nor a result backend could make the error again.

# A word that may be an address with a password.
_ADDRESS = r"(?is)\S*(//.*@|:\S*@|//\S*(pass|pwd|key|secret|token)\S*=)\S*"


def near_names(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the known name that is most similar to another, if any is.

    The cutoff says how similar the names must be, up to 1.
    """
    from difflib import get_close_matches  # slow, and only a mistake needs it

    return get_close_matches(name, list(known), n=1, cutoff=cutoff)


class PyramidTasksError(Exception):
    """The root of every error that this package raises.

    Attributes:
        info: The file and the line of the directive that raised the error, if one did.
    """

    info: Any = None


class SettingError(PyramidTasksError, ConfigurationError):
    """A setting cannot be used; the message hides each address with a password.

    Attributes:
        key: The setting as the configuration has it, with its prefix.
        problem: The fault, and the remedy.
        source: The file and the section of the setting, where they are known.
    """

    def __init__(self, key: str, problem: str, source: str | None = None) -> None:
        problem = re.sub(_ADDRESS, "********", problem)
        super().__init__(key, problem, source)
        self.key = key
        self.problem = problem
        self.source = source

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        return f"{where}{self.key} {self.problem}"


class UnknownSetting(SettingError):
    """Nobody knows a setting: its name is misspelt, or a plugin of Celery reads it.

    Attributes:
        nearest: The known setting with the most similar name, or ``None``.
    """

    def __init__(self, key: str, problem: str, nearest: str | None) -> None:
        hint = f" Did you mean {nearest}?" if nearest else ""
        super().__init__(key, problem + hint)
        self.args = (key, problem, nearest)
        self.nearest = nearest


class TaskError(PyramidTasksError, ConfigurationError):
    """A task cannot be registered, or scheduled, as it was given."""


class ForkSafetyError(PyramidTasksError, ConfigurationError):
    """``config.add_fork_safe`` was given neither a function nor an engine."""


class TaskNotRegistered(PyramidTasksError, NotRegistered):
    """The application has not registered the task that a caller named.

    Attributes:
        task: The name, the function or the task that the caller gave.
        nearest: The registered task with the most similar name, or ``None``.
    """

    def __init__(self, task: object, nearest: str | None = None) -> None:
        super().__init__(task, nearest)
        self.task = task
        self.nearest = nearest

    def __str__(self) -> str:
        given = self.task
        if not (isinstance(given, str) or callable(given)):
            return f"{given!r} is no task. Give a function, not the result of its call."
        hint = "Use config.register_task(), or @pyramid_tasks.task and config.scan()."
        if qualname := getattr(given, "__qualname__", None):
            given = f"{given.__module__}.{qualname}"
        hint = f"Did you mean {self.nearest!r}?" if self.nearest else hint
        return f"No task {given!r} is registered in this application. {hint}"

    __repr__ = Exception.__repr__


class AmbiguousTask(PyramidTasksError, LookupError):
    """A caller gave a function that is registered under several names.

    Attributes:
        task: The function, or its dotted name.
        names: The names of its tasks.
    """

    def __init__(self, task: object, names: list[str]) -> None:
        super().__init__(task, names)
        self.task = task
        self.names = names

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.names))
        return f"{self.task!r} is registered under several names: {names}. Give one."


class DeferError(PyramidTasksError, TypeError):
    """A call cannot be deferred as it was given."""


class BrokerUnavailable(PyramidTasksError, OperationalError):
    """The broker cannot be reached, so the transaction was aborted.

    Attributes:
        broker: The URL of the broker, without its password.
        reason: The error of the connection, as text.
    """

    def __init__(self, broker: str, reason: object) -> None:
        super().__init__(broker, str(reason))
        self.broker = broker
        self.reason = str(reason)

    def __str__(self) -> str:
        return (
            f"The broker {self.broker} cannot be reached ({self.reason}); the "
            "transaction that defers a task is aborted, as its task could not be sent."
        )


class ResultNotReady(PyramidTasksError, RuntimeError):
    """A caller waited for the result of a task that has not been sent.

    Attributes:
        task_id: The id of the task.
        aborted: Whether the task never will be, as its transaction was aborted.
    """

    def __init__(self, task_id: str, aborted: bool = False) -> None:  # noqa: FBT001, FBT002 pickled by position
        super().__init__(task_id, aborted)
        self.task_id = task_id
        self.aborted = aborted

    def __str__(self) -> str:
        if self.aborted:
            return (
                f"The task {self.task_id} was not sent: the transaction that deferred "
                "it was aborted, or rolled back to an earlier savepoint. Its result "
                "will never be there."
            )
        return (
            f"The task {self.task_id} is sent when the transaction commits, so waiting "
            "for its result before that would never end. Commit first, or defer it "
            "with delivery='immediate'. In a test that captures tasks, run it first."
        )


class OutboxError(PyramidTasksError, RuntimeError):
    """The outbox cannot be used as the application is set up."""


class OutboxTableMissing(OutboxError, LookupError):
    """The database has no table for the outbox.

    Attributes:
        table: The name of the table.
        database: The URL of the database, without its password.
        schema: The schema where it was looked for, or ``None`` for the default.
        has_schema: Whether there is that schema.
        declared: The other schemas in which the application declares the table.
    """

    def __init__(
        self,
        table: str,
        database: str,
        schema: str | None = None,
        has_schema: bool = True,  # noqa: FBT001, FBT002 pickled by position
        declared: Iterable[str] = (),
    ) -> None:
        declared = tuple(declared)
        super().__init__(table, database, schema, has_schema, declared)
        self.table = table
        self.database = database
        self.schema = schema
        self.has_schema = has_schema
        self.declared = declared

    def __str__(self) -> str:
        if not self.has_schema:
            return (
                f"The database {self.database} has no schema {self.schema}: make the "
                "schema, or correct pyramid_tasks.outbox_schema or the "
                "schema_translate_map of the engine."
            )
        where = f"{self.schema}." if self.schema else ""
        missing = f"The database {self.database} has no table {where}{self.table}"
        if self.declared:
            return (
                f"{missing}, and the application declares the table in the schema "
                f"{' and in '.join(self.declared)}: set pyramid_tasks.outbox_schema = "
                f"{self.declared[0]}."
            )
        return (
            f"{missing}. Make it with celery --ini FILE outbox create, where FILE is "
            "your ini, or in a migration. In tests, declare it with "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata), and call "
            "Base.metadata.create_all(engine)."
        )


class CoroutineError(PyramidTasksError, RuntimeError):
    """The coroutine of a task cannot be run to its end, or nobody runs it."""


class CaptureError(PyramidTasksError, RuntimeError):
    """A test cannot capture the tasks of an application, or cannot run them."""


class LoadError(PyramidTasksError, ConfigurationError, LookupError):
    """No Celery application could be loaded from a configuration.

    Attributes:
        config_uri: The config URI, as it was given.
    """

    def __init__(self, message: str, config_uri: str) -> None:
        super().__init__(message, config_uri)
        self.config_uri = config_uri

    def __str__(self) -> str:
        return str(self.args[0])


class ConfigFileNotFound(LoadError, FileNotFoundError):
    """The file that a config URI names does not exist."""
