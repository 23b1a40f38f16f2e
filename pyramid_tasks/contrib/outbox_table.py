"""The tables of the outbox and of the inbox, for the metadata of an application.

``celery ... outbox create`` makes the tables. If Alembic makes your tables, add these
two to the metadata that Alembic compares with the database::

    from pyramid_tasks.contrib.outbox_table import outbox_table

    outbox_table(Base.metadata)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..outbox import inbox_table, table
from ..outbox.inbox_table import InboxRow
from ..outbox.table import OutboxMessage, database_time, metadata

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

__all__ = ["InboxRow", "OutboxMessage", "database_time", "metadata", "outbox_table"]


def outbox_table(metadata: MetaData) -> Table:
    """Add the tables to the metadata of an application, for Alembic.

    Args:
        metadata: The ``target_metadata`` of Alembic's ``env.py``.

    Returns:
        The table of the outbox in that metadata.
    """
    inbox_table.inbox_table(metadata)
    return table.outbox_table(metadata)
