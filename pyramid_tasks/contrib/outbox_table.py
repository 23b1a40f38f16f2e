"""The tables of the outbox and of the inbox, for the metadata of an application.

``celery ... outbox create`` makes the tables. If Alembic makes your tables, add these
two to the metadata that Alembic compares with the database::

    from pyramid_tasks.contrib.outbox_table import outbox_table

    outbox_table(Base.metadata)
"""

from __future__ import annotations

from ..outbox.models import InboxRow, OutboxMessage, database_time, metadata
from ..outbox.tables import outbox_table

__all__ = ["InboxRow", "OutboxMessage", "database_time", "metadata", "outbox_table"]
