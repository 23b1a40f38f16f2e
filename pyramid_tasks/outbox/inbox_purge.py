"""The work of a relay for the inbox: the relay deletes old rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..registry import get_tasks, tasks_with_inbox
from .configuration import get_outbox

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

# Seconds between looks for old rows.
_INTERVAL = 60.0
# How many rows are deleted at a time, as messages wait meanwhile.
_AT_MOST = 5000


class InboxPurge:
    """Deletes old rows of the inbox, if an application has one.

    Args:
        registry: The registry of the application.
        engine: The engine of the inbox.
    """

    def __init__(self, registry: Registry, engine: Engine) -> None:
        self.engine = engine
        self.keep = get_outbox(registry).number("inbox_keep")
        has_inbox = any(tasks_with_inbox(get_tasks(registry).app))
        self._due = time.monotonic() if has_inbox else float("inf")

    def run(self) -> None:
        """Delete some rows if it is time to.

        Raises:
            OutboxTableMissing: The database has no table for the inbox.
            sqlalchemy.exc.DBAPIError: The database cannot be used.
        """
        if time.monotonic() < self._due:
            return
        # Without an inbox, no table is asked for.
        from .inbox_rows import purge
        from .tables import check_inbox_table

        check_inbox_table(self.engine)
        if purge(self.engine, self.keep, at_most=_AT_MOST) < _AT_MOST:
            self._due = time.monotonic() + _INTERVAL
