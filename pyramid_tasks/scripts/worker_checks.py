"""The check of ``ptasks --check`` on the settings of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from celery.app.defaults import DEFAULTS

from ..exceptions import SettingError
from ..worker.files import problem_of_file
from ..worker.ignored_settings import ignored_settings
from ..worker.lifecycle import async_tasks_under

if TYPE_CHECKING:
    from celery import Celery


def check_worker(app: Celery) -> Iterator[SettingError]:
    """Yield the problems that a worker reports when it starts.

    Args:
        app: The application.
    """
    pool = app.conf.worker_pool
    if problem := async_tasks_under(pool, app):
        problem = f"= {pool} {problem} Write prefork, threads or solo."
        yield SettingError("celery.worker_pool", problem)
    files = ["worker_state_db"]
    # By default, the file is in the folder where beat starts.
    if _is_set(app, "beat_schedule_filename") and not _is_set(app, "beat_scheduler"):
        files.append("beat_schedule_filename")
    for name in files:
        if problem := problem_of_file(app.conf[name]):
            yield SettingError(f"celery.{name}", problem)
    for name, said in ignored_settings(app):
        yield SettingError(f"celery.{name}", said)


def _is_set(app: Celery, name: str) -> bool:
    return bool(app.conf[name] != DEFAULTS[name])
