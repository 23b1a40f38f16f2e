"""The check of ``ptasks --check`` on the settings of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..exceptions import SettingError
from ..worker.doubtful import doubtful_settings
from ..worker.lifecycle import async_tasks_under, problem_of_state_db

if TYPE_CHECKING:
    from celery import Celery


def check_worker(app: Celery) -> Iterator[SettingError]:
    """Yield what a worker tells as it starts.

    Args:
        app: The application.
    """
    pool = app.conf.worker_pool
    if problem := async_tasks_under(pool, app):
        problem = f"= {pool} {problem} Write prefork, threads or solo."
        yield SettingError("celery.worker_pool", problem)
    if problem := problem_of_state_db(app.conf.worker_state_db):
        yield SettingError("celery.worker_state_db", problem)
    for name, said in doubtful_settings(app):
        yield SettingError(f"celery.{name}", said)
