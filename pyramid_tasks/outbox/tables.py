"""All tables of this package: the tables of the outbox and the table of the inbox."""

from __future__ import annotations

from sqlalchemy import Engine, MetaData, Table, inspect
from sqlalchemy.schema import SchemaConst

from ..exceptions import OutboxTableMissing
from .inbox_table import InboxRow
from .table import (
    TABLE_NAME,
    OutboxMessage,
    OutboxRelay,
    database_name,
    declare,
    metadata,
    schema_of,
)

__all__ = ["InboxRow", "OutboxMessage", "OutboxRelay", "create_tables", "outbox_table"]


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
    declare(target, schema)
    prefix = f"{schema}." if schema else ""
    for table in metadata.sorted_tables:
        if prefix + table.name not in target.tables:
            table.to_metadata(target, schema=schema or SchemaConst.RETAIN_SCHEMA)
    return target.tables[prefix + OutboxMessage.__tablename__]
