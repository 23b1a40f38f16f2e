"""In which schemas the tables are: one for all, or one for each tenant.

The tables of this package name no schema. Where the execution option
``schema_translate_map`` names one for ``None``, they are looked for there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, literal_column, select

from .models import TABLE_NAME
from .tables import database_name, schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Dialect, Engine

#: Execution options of SQLAlchemy.
Options = Mapping[str, Any]

logger = logging.getLogger(__name__)

# The end of a message about a wrong schema.
_REMEDY = (
    "tasks that the process of the request does not send itself are never sent. Name "
    "the schemas that sessions write to in pyramid_tasks.outbox_schema."
)


def schema_in_postgresql(oid: str) -> ColumnElement[str]:
    """Return an expression for the schema of a table, whose oid is an expression."""
    return literal_column(
        "(SELECT nspname FROM pg_class JOIN pg_namespace "  # noqa: S608 no input
        f"ON pg_namespace.oid = relnamespace WHERE pg_class.oid = {oid})"
    )


_FOUND_IN_POSTGRESQL = schema_in_postgresql(f"to_regclass('{TABLE_NAME}')")


def _default_schema(connection: Connection) -> str | None:
    """Return where a statement that names no schema finds the table."""
    if connection.dialect.name == "postgresql":
        return connection.scalar(select(_FOUND_IN_POSTGRESQL))
    return connection.dialect.default_schema_name


class Schemas:
    """The schemas of an application.

    Attributes:
        names: The names in the setting ``pyramid_tasks.outbox_schema``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._options: dict[str | None, Options] = {None: {}}
        # By the dialect, which belongs to one database: an application may make an
        # engine with other execution options for each request.
        self._engines: dict[tuple[Dialect, str | None], Engine] = {}
        # SQLAlchemy refuses to run a compiled statement with a map of other keys. So
        # what was compiled with the map of an application is not used here.
        self._compiled: dict[Any, Any] = {}

    def of_session(self, connection: Connection) -> str | None:
        """Return the schema that a session writes to.

        One name of the setting holds for all sessions. Otherwise the session decides.

        Returns:
            The schema, or ``None`` where only the database knows it.
        """
        if len(self.names) == 1:
            return schema_of(connection, self.names[0])
        found = schema_of(connection)
        if not found and self.names and connection.dialect.name in {"mysql", "mariadb"}:
            found = connection.scalar(select(func.database()))
        return found

    def options(self, schema: str | None) -> Options:
        """Return the execution options of statements about the tables in a schema."""
        if schema not in self._options:
            self._options[schema] = {
                "schema_translate_map": {None: schema},
                "compiled_cache": self._compiled,
            }
        return self._options[schema]

    def at(self, engine: Engine, schema: str | None) -> Engine:
        """Return an engine with the same pool, which finds the tables in a schema."""
        key = engine.dialect, schema
        if key not in self._engines:
            options = self.options(schema)
            located = engine.execution_options(**options) if options else engine
            self._engines.setdefault(key, located)
        return self._engines[key]

    def all(self, engine: Engine) -> list[Engine]:
        """Return an engine for each schema where a relay looks."""
        names: Sequence[str | None] = self.names or [None]
        found = dict.fromkeys(schema_of(engine, name) for name in names)
        return [self.at(engine, schema) for schema in found]

    def check(self, engine: Engine, schema: str | None) -> None:
        """Log an error if rows were committed to a schema where no relay looks.

        Args:
            engine: The engine of the relay.
            schema: The schema.

        Raises:
            sqlalchemy.exc.DBAPIError: The database cannot be asked.
        """
        known = {schema_of(each) for each in self.all(engine)}
        if schema is None or schema in known:
            return
        if known == {None}:
            with engine.connect() as connection:
                known = {_default_schema(connection)}
        if schema not in known:
            logger.error(
                "Tasks were committed to %s of %s, and no relay looks there, but in "
                "%s: %s",
                _table_in(schema),
                database_name(engine),
                ", ".join(sorted(map(_table_in, known))),
                _REMEDY,
            )


def report_missing(engine: Engine, count: int) -> None:
    """Log an error about committed rows that nobody else can have deleted.

    Args:
        engine: Where the rows were looked for.
        count: How many were not found.
    """
    logger.error(
        "%s tasks that were just committed are not found in %s of %s, with another "
        "connection than the request has. A relay does not find them either: %s",
        count,
        _table_in(schema_of(engine)),
        database_name(engine),
        _REMEDY,
    )


def _table_in(schema: str | None) -> str:
    """Return the name of the table in a schema."""
    return f"{schema}.{TABLE_NAME}" if schema else TABLE_NAME
