"""Makes the Celery application of a Pyramid application, and configures it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyramid.config import PHASE0_CONFIG

from ..application import PyramidCelery, names_broker
from ..registry import KEY, Tasks, get_tasks
from ..settings import extract_celery_settings, merge_settings
from ..worker.forking import watch_forks
from .connections import check_connections
from .databases import check_databases
from .inbox import check_inbox_setting
from .load import check_at_commit, current_load, report_setting, reporting
from .own_settings import check_own_settings
from .serializers import check_contents
from .unknown_settings import unknown_settings
from .values import check_environment, check_setting_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from pyramid.config import Configurator

    from ..exceptions import SettingError

logger = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Put a Celery application on the registry, and configure it at the commit."""
    registry = config.registry
    app = PyramidCelery(registry)
    watch_forks()
    registry[KEY] = tasks = Tasks(app)
    load = current_load()
    if load:
        tasks.section_settings = load.settings
        tasks.section = load.section
        tasks.is_worker = True
        load.created.append((app, registry))

    def configure() -> None:
        settings = config.get_settings()
        tasks.delivery = settings.get("pyramid_tasks.delivery", tasks.delivery)
        app.config_from_object(_checked_settings(tasks, settings), force=True)
        if not (load or names_broker(app) or app.conf.task_always_eager):
            logger.warning(
                "celery.broker_url is not set: tasks go to Celery's default, amqp://"
            )

    # Before anything else is registered, as Celery binds its tasks to the settings.
    check_at_commit(config, (KEY, "settings"), configure, order=PHASE0_CONFIG)
    if not config.autocommit:  # otherwise the includes still to come are not known
        check_at_commit(config, (KEY, "delivery"), tasks.get_delivery)
        check_at_commit(config, (KEY, "inbox"), lambda: check_inbox_setting(registry))


def _checked_settings(tasks: Tasks, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of an application and of its worker, and return Celery's."""

    def key_of(name: str) -> str:
        is_of_section = name.partition(".")[0] in tasks.section_settings
        return name if is_of_section else f"celery.{name}"

    def report_value(problem: SettingError) -> None:
        name = problem.key
        if not problem.source:  # otherwise it is of the environment
            problem.key = key_of(name)
            if problem.key == name:
                problem.source = tasks.section
        report_setting(problem)

    check_own_settings(settings)
    for problem in unknown_settings(settings):
        report_setting(problem)
    with reporting():
        check_environment()
    own = extract_celery_settings(settings, report_setting)
    merged = merge_settings(own, tasks.section_settings)
    check_setting_values(merged, report_value, is_worker=tasks.is_worker)
    if tasks.is_worker:
        check_contents(merged, report_value, key_of)
    check_databases(merged, report_value, is_worker=tasks.is_worker)
    check_connections(merged, report_value, key_of)
    if not tasks.is_worker:
        # Otherwise a process that only sends connects to the database of results.
        merged.setdefault("database_create_tables_at_setup", False)
    return merged


def make_celery_app(config: Configurator) -> Celery:
    """Commit the configuration and return the Celery application.

    The twin of ``config.make_wsgi_app()``, for a module that ``celery -A`` names.
    """
    tasks = get_tasks(config.registry)
    tasks.is_worker = True
    config.commit()
    return tasks.app
