"""The committed rows that a process has not sent: they wait, or are left to relays."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from .rows import begin, is_leased

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from .rows import Row

# The limits of the rows that wait in memory. A relay has the rest.
_MAX_ROWS = 10_000
_MAX_CHARACTERS = 16_000_000


class Backlog:
    """Rows that wait in memory, in the order of their commits. The caller locks it."""

    def __init__(self) -> None:
        self._rows: deque[tuple[Engine, Row]] = deque()
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, engine: Engine, rows: Sequence[Row]) -> bool:
        """Add rows of a database if they fit, and return whether they do."""
        size = self._size + _size(rows)
        if len(self._rows) + len(rows) > _MAX_ROWS or size > _MAX_CHARACTERS:
            return False
        self._rows.extend((engine, row) for row in rows)
        self._size = size
        return True

    def take(self, limit: int) -> tuple[Engine, list[Row]]:
        """Take the first rows, which are all of one database."""
        engine = self._rows[0][0]
        rows: list[Row] = []
        while self._rows and self._rows[0][0] is engine and len(rows) < limit:
            rows.append(self._rows.popleft()[1])
        self._size -= _size(rows)
        return engine, rows


class LeftToRelays:
    """The last row that was left, for each database. Any thread may add one.

    No later row may overtake it.
    """

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
            return is_leased(connection, last)


def _size(rows: Sequence[Row]) -> int:
    return sum(len(row.message) for row in rows)
