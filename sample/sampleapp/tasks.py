"""The tasks: importing a file, and removing old imports."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery.schedules import crontab
from sqlalchemy import delete, insert, update

from pyramid_tasks import task

from .csvfile import ExpenseRow, UnreadableRow, count_rows, read_rows
from .models import BadRow, Expense, Import, Notice, now

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request

CHUNK = 500
#: A file can be all rubbish: this many rows of it are kept to be shown.
BAD_ROWS_KEPT = 1000

log = logging.getLogger(__name__)


class SupersededError(Exception):
    """Another delivery of the same message has taken over, or the import is gone."""


def includeme(config: Configurator) -> None:
    """Read the settings of the tasks, and plan the nightly one."""
    settings = config.get_settings()
    for key, default in (
        ("sampleapp.seconds_per_chunk", 0.0),
        ("sampleapp.keep_days", 30.0),
    ):
        settings[key] = float(settings.get(key, default))
    config.add_periodic_task(crontab(hour="3", minute="0"), remove_old_imports)


@task(tm=False)
def import_expenses(request: Request, import_id: int) -> dict[str, int] | None:
    """Read the file of an import into the database.

    It can be delivered more than once: it starts over, and does nothing if the
    import is done. It has many transactions of its own, in place of the one that
    tasks have.

    Args:
        request: The request of the task.
        import_id: The import. The task gets the id and not the file, which may be
            large and would go through the broker.

    Returns:
        How many rows there were, and how many could not be read; `None` if there
        was nothing to do.
    """
    claimed = _claim(request, import_id)
    if claimed is None:
        log.info("Import %s is done already, or removed", import_id)
        return None
    attempt, text = claimed
    try:
        return _import_text(request, import_id, attempt, text)
    except SupersededError:
        log.warning("Import %s has been taken over or removed", import_id)
        return None
    except Exception as error:
        message = describe_error(error)
        # The error is what Celery must see, also if this attempt is overtaken.
        with suppress(SupersededError), request.tm:
            _set(request, import_id, attempt, status="failed", error=message)
        raise


@task
def remove_old_imports(request: Request) -> int:
    """Remove the imports older than `sampleapp.keep_days`; return how many."""
    days = request.registry.settings["sampleapp.keep_days"]
    # The database removes their rows with them.
    result = request.dbsession.execute(
        delete(Import).where(Import.created < now() - timedelta(days=days)),
        execution_options={"synchronize_session": False},
    )
    removed: int = result.rowcount
    log.info("Removed %s imports older than %g days", removed, days)
    return removed


def describe_error(error: Exception) -> str:
    """Return the first line of an error: what follows is for the log."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300].rstrip(": ")


def _claim(request: Request, import_id: int) -> tuple[int, str] | None:
    """Begin an attempt, without what an earlier one has left."""
    with request.tm:
        claimed = request.dbsession.execute(
            update(Import)
            .where(Import.id == import_id, Import.status != "done")
            .values(
                status="running",
                attempt=Import.attempt + 1,
                progressed=now(),
                error=None,
                rows_total=None,
                rows_done=0,
                rows_bad=0,
            )
            .returning(Import.attempt, Import.text),
            execution_options={"synchronize_session": False},
        ).one_or_none()
        if claimed is None:
            return None
        for table in (Expense, BadRow, Notice):
            request.dbsession.execute(
                delete(table).where(table.import_id == import_id),
                execution_options={"synchronize_session": False},
            )
        return claimed.attempt, claimed.text


def _import_text(
    request: Request, import_id: int, attempt: int, text: str
) -> dict[str, int]:
    pause = request.registry.settings["sampleapp.seconds_per_chunk"]
    done = bad = 0
    with request.tm:
        _set(request, import_id, attempt, rows_total=count_rows(text))
    rows = read_rows(text)
    while chunk := list(islice(rows, CHUNK)):
        unreadable = [row for row in chunk if isinstance(row, UnreadableRow)]
        kept = unreadable[: max(BAD_ROWS_KEPT - bad, 0)]
        done += len(chunk)
        bad += len(unreadable)
        # A transaction for each chunk: the page sees how far it is.
        with request.tm:
            # The import first. It locks the row, so a second delivery cannot begin
            # between this check and the expenses.
            _set(request, import_id, attempt, rows_done=done, rows_bad=bad)
            _insert(request, Expense, import_id, _expenses(chunk))
            _insert(request, BadRow, import_id, [vars(row) for row in kept])
        time.sleep(pause)
    with request.tm:
        _set(request, import_id, attempt, status="done")
        _give_notice(request, import_id, done, bad)
    return {"rows": done, "bad": bad}


def _give_notice(request: Request, import_id: int, rows: int, bad: int) -> None:
    """Say that an import is done, and where its result is.

    The link has the host that the browser used: "pyramid_tasks.context = host" tells
    it to the task.
    """
    url = request.route_url("import", id=import_id)
    text = f"Your file is imported, {rows - bad:,} of {rows:,} rows: {url}"
    request.dbsession.add(Notice(import_id=import_id, text=text))


def _set(request: Request, import_id: int, attempt: int, **values: Any) -> None:
    """Change an import, if this attempt is still the latest."""
    result = request.dbsession.execute(
        update(Import)
        .where(Import.id == import_id, Import.attempt == attempt)
        .values(progressed=now(), **values),
        execution_options={"synchronize_session": False},
    )
    if result.rowcount == 0:
        raise SupersededError


def _expenses(chunk: list[ExpenseRow | UnreadableRow]) -> list[dict[str, Any]]:
    return [vars(row) for row in chunk if isinstance(row, ExpenseRow)]


def _insert(
    request: Request,
    table: type[Expense | BadRow],
    import_id: int,
    rows: list[dict[str, Any]],
) -> None:
    if rows:
        request.dbsession.execute(
            insert(table), [{"import_id": import_id, **row} for row in rows]
        )
