"""All tables of this package: those of the outbox and that of the inbox."""

from __future__ import annotations

from sqlalchemy import Engine, MetaData, Table, inspect

from .inbox_table import InboxRow
from .table import OutboxMessage, OutboxRelay, metadata

__all__ = ["InboxRow", "OutboxMessage", "OutboxRelay", "create_tables", "outbox_table"]


def create_tables(engine: Engine) -> dict[str, bool]:
    """Make the tables that are missing, and return for each whether it was."""
    inspector = inspect(engine)
    missing = {
        table: not inspector.has_table(table.name) for table in metadata.sorted_tables
    }
    metadata.create_all(engine, tables=[each for each in missing if missing[each]])
    return {table.name: missing[table] for table in missing}


def outbox_table(target: MetaData) -> Table:
    """Add the tables of the outbox and the inbox to other metadata, for Alembic.

    Args:
        target: The ``target_metadata`` of Alembic's ``env.py``.

    Returns:
        The table of the outbox in that metadata.
    """
    # If the other tables have a default schema, these tables are put there too.
    prefix = f"{target.schema}." if target.schema else ""
    for table in metadata.sorted_tables:
        if prefix + table.name not in target.tables:
            table.to_metadata(target)
    return target.tables[prefix + OutboxMessage.__tablename__]
