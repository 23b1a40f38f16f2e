"""The rows that a process left to the relays, so that no later row overtakes them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .rows import begin, is_leased

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .rows import Row


class LeftRows:
    """The last row that was left, for each database. Any thread may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Engine, Row] = {}

    def add(self, engine: Engine, row: Row) -> None:
        """Note that a row is left to the relays."""
        with self._lock:
            last = self._rows.get(engine)
            if last is None or last.id < row.id:
                self._rows[engine] = row

    def remove(self, engine: Engine, row: Row) -> None:
        """Forget a row, unless one was left after it."""
        with self._lock:
            if self._rows.get(engine) is row:
                del self._rows[engine]

    def is_leased(self, engine: Engine) -> bool | None:
        """Whether the last row that was left is not due for the relays yet.

        Returns:
            ``None`` if no row waits that was left.
        """
        last = self._rows.get(engine)
        if last is None:
            return None
        with begin(engine) as connection:
            leased = is_leased(connection, last)
        if leased is None:
            self.remove(engine, last)
        return leased
