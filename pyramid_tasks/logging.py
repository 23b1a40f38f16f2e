"""The running task in each line of a log."""

from __future__ import annotations

import logging

from celery import current_task


class TaskFilter(logging.Filter):
    """A filter that lets every record pass, and says in it which task wrote it.

    Records get the fields ``task_name`` and ``task_id``. Outside of tasks both are
    ``???``, as in Celery's own format. Add the filter to a handler, since the filters
    of a logger do not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the name and the id of the running task."""
        _add_task(record)
        return True


class TaskFormatter(logging.Formatter):
    """A formatter whose format can have ``%(task_name)s`` and ``%(task_id)s``.

    It does for the logging sections of an ini, which have no filters, what
    :class:`TaskFilter` does for a handler.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, after adding the name and the id of the running task."""
        _add_task(record)
        return super().format(record)


def _add_task(record: logging.LogRecord) -> None:
    fields = vars(record)
    if current_task:
        fields.update(task_name=current_task.name, task_id=current_task.request.id)
    else:
        # A record can come from another thread, where a task was running.
        fields.setdefault("task_name", "???")
        fields.setdefault("task_id", "???")
