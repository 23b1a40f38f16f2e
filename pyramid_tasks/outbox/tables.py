"""The tables in a database, and in the metadata of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, MetaData, Table, inspect
from sqlalchemy.schema import SchemaConst

from ..exceptions import OutboxError, OutboxTableMissing
from .models import INBOX_TABLE_NAME, RELAY_TABLE_NAME, TABLE_NAME, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

_Kind = TypeVar("_Kind")

# The metadata of applications that have these tables, too, and the schemas there.
_declared: WeakKeyDictionary[MetaData, set[str | None]] = WeakKeyDictionary()


def check_table(
    bind: Engine | Connection,
    schema: str | None = None,
    names: Iterable[str] = (TABLE_NAME, RELAY_TABLE_NAME),
) -> None:
    """Find out whether the database has the tables of the outbox, or others.

    Args:
        bind: The engine or the connection that asks the database.
        schema: Where the tables are to be; default, where the bind looks for them.
        names: The names of the tables.

    Raises:
        OutboxTableMissing: It does not.
        sqlalchemy.exc.DBAPIError: The database cannot be reached.
    """
    inspector = inspect(bind)
    schema = schema or schema_of(bind)
    for name in names:
        if not inspector.has_table(name, schema):
            raise OutboxTableMissing(
                name,
                database_name(bind.engine),
                schema,
                has_schema=schema is None or inspector.has_schema(schema),
                declared=tuple(sorted(filter(None, declared_schemas() - {schema}))),
            )


def check_inbox_table(bind: Engine | Connection) -> None:
    """Find out whether the database has the table of the inbox.

    Raises:
        OutboxTableMissing: It does not.
        sqlalchemy.exc.DBAPIError: The database cannot be reached.
    """
    check_table(bind, names=[INBOX_TABLE_NAME])


def create_tables(engine: Engine) -> dict[str, bool]:
    """Make the tables that are missing, and return for each whether it was.

    Raises:
        OutboxTableMissing: There is no such schema.
    """
    inspector = inspect(engine)
    schema = schema_of(engine)
    missing = {
        table: not inspector.has_table(table.name, schema)
        for table in metadata.sorted_tables
    }
    if schema and not inspector.has_schema(schema):
        name = database_name(engine)
        raise OutboxTableMissing(TABLE_NAME, name, schema, has_schema=False)
    metadata.create_all(engine, tables=[each for each in missing if missing[each]])
    return {table.name: missing[table] for table in missing}


def outbox_table(target: MetaData, schema: str | None = None) -> Table:
    """Add the tables of the outbox and the inbox to other metadata, for Alembic.

    Args:
        target: The ``target_metadata`` of Alembic's ``env.py``.
        schema: The schema of the tables, as in ``pyramid_tasks.outbox_schema``;
            default, the schema of the metadata.

    Returns:
        The table of the outbox in that metadata.
    """
    schema = schema or target.schema
    _declared.setdefault(target, set()).add(schema)
    prefix = f"{schema}." if schema else ""
    for table in metadata.sorted_tables:
        if prefix + table.name not in target.tables:
            table.to_metadata(target, schema=schema or SchemaConst.RETAIN_SCHEMA)
    return target.tables[prefix + TABLE_NAME]


def declared_schemas() -> set[str | None]:
    """Return the schemas that the metadata of applications names for the tables."""
    return set().union(*_declared.values())


def schema_of(bind: Engine | Connection, schema: str | None = None) -> str | None:
    """Return what the ``schema_translate_map`` of a bind puts in place of a schema."""
    translated = bind.get_execution_options().get("schema_translate_map") or {}
    found: str | None = translated.get(schema, schema)
    return found


def database_name(engine: Engine) -> str:
    """Return the URL of a database without its password and its options."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def as_a(kind: type[_Kind], found: object, argument: str) -> _Kind:
    """Return a session or an engine, if the application gives one.

    Raises:
        OutboxError: It gives something else.
    """
    if not isinstance(found, kind):
        raise OutboxError(
            f"The {argument} of the outbox must be a SQLAlchemy {kind.__name__}, and "
            f"not of type {type(found).__name__}. Name another one: "
            f"config.set_task_outbox({argument}=...)."
        )
    return found


def reason_of(error: Exception) -> object:
    """Return what the driver said: the errors of SQLAlchemy quote the statement too."""
    return getattr(error, "orig", None) or error
