"""What beat says before it queues anything."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

logger = logging.getLogger("celery.beat")


def tell_next(scheduler: Any) -> None:
    """Log which task beat queues next, and when; level INFO.

    Args:
        scheduler: The scheduler of beat.
    """
    waits = []
    for entry in scheduler.schedule.values():
        is_due, seconds = entry.is_due()
        waits.append((0 if is_due else seconds, entry.name, entry.task))
    if not waits:
        logger.info("The schedule is empty: there is nothing to queue.")
        return
    seconds, name, task = min(waits)
    wait = timedelta(seconds=round(seconds))
    logger.info("First, beat queues %s (task %s), in %s.", name, task, wait)
