"""Rows that their process does not find again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from .schemas import REMEDY, table_in
from .tables import database_name, schema_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .sending import Round

logger = logging.getLogger(__name__)


def report_lost(engine: Engine, result: Round, count: int) -> None:
    """Log an error if rows are missing that nobody else can have deleted.

    Args:
        engine: Where the rows were looked for.
        result: The outcome for the rows in their process.
        count: How many were not found.
    """
    now = time.monotonic()
    if all(now < row.deadline for row in result.sent + result.left):
        logger.error(
            "%s tasks that were just committed are not found in %s of %s, with another "
            "connection than the request has. A relay does not find them either: "
            "%s",
            count,
            table_in(schema_of(engine)),
            database_name(engine),
            REMEDY,
        )
