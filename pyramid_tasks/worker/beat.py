"""The checks and the messages of beat before it queues anything."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from celery.apps.beat import Beat
from celery.beat import PersistentScheduler
from celery.utils.imports import load_extension_class_names, symbol_by_name

from .files import check_files

logger = logging.getLogger("celery.beat")


class CheckedBeat(Beat):
    """Beat, which ends with a sentence if it cannot keep its files."""

    def start_scheduler(self) -> None:
        check_beat(self.scheduler_cls, self.schedule)
        check_files(pidfile=self.pidfile, logfile=self.logfile)
        super().start_scheduler()


def check_beat(scheduler: Any, filename: str) -> None:
    """End a process in which beat has no scheduler, or no folder for its file.

    Args:
        scheduler: The scheduler; others than Celery's own keep no file.
        filename: The file, of the setting or of the option ``--schedule``.
    """
    aliases = dict(load_extension_class_names("celery.beat_schedulers"))
    try:
        found = symbol_by_name(scheduler, aliases)
    except (AttributeError, ModuleNotFoundError) as error:
        parts = f".{scheduler.replace(':', '.')}."
        if f".{error.name}." not in parts:  # of the code of the scheduler
            raise
        problem = f"{scheduler} cannot be imported: {error}."
        raise SystemExit(f"Error: scheduler = {problem}") from None
    if isinstance(found, type) and issubclass(found, PersistentScheduler):
        check_files(beat_schedule_filename=filename)


def log_first_task(scheduler: Any) -> None:
    """Log which task beat queues next, and when; level INFO."""
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
