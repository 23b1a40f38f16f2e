"""Makes the Celery application of a Pyramid application, and configures it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyramid.config import PHASE0_CONFIG

from ..application import PyramidCelery, names_broker
from ..registry import KEY, Tasks, get_tasks
from ..settings import extract_celery_settings, merge_settings
from .load import current_load, report_setting, reporting
from .own_settings import check_own_settings
from .values import check_environment, check_values

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.config import Configurator

    from ..exceptions import SettingError

logger = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Put a Celery application on the registry, and configure it at the commit."""
    registry = config.registry
    app = PyramidCelery(registry)
    registry[KEY] = tasks = Tasks(app)
    load = current_load()
    if load:
        tasks.section_settings = load.settings
        tasks.section = load.section
        tasks.is_worker = True
        load.created.append((app, registry))

    def report_value(name: str, problem: SettingError) -> None:
        if name in tasks.section_settings:
            problem.source = tasks.section
        else:
            problem.key = f"celery.{name}"
        report_setting(problem)

    def configure() -> None:
        settings = config.get_settings()
        tasks.delivery = settings.get("pyramid_tasks.delivery", tasks.delivery)
        check_own_settings(settings, report_setting)
        with reporting():
            check_environment()
        own = extract_celery_settings(settings, report_setting)
        merged = merge_settings(own, tasks.section_settings)
        check_values(merged, report_value, is_worker=tasks.is_worker)
        app.config_from_object(merged, force=True)
        if not (load or names_broker(app) or app.conf.task_always_eager):
            logger.warning(
                "celery.broker_url is not set: tasks go to Celery's default, amqp://"
            )

    # Before anything else is registered, as Celery binds its tasks to the settings.
    config.action((KEY, "settings"), configure, order=PHASE0_CONFIG)
    if not config.autocommit:  # otherwise the includes still to come are not known
        config.action((KEY, "delivery"), reporting()(tasks.get_delivery))


def make_celery_app(config: Configurator) -> Celery:
    """Commit the configuration and return the Celery application.

    The twin of ``config.make_wsgi_app()``, for a module that ``celery -A`` names.
    """
    tasks = get_tasks(config.registry)
    tasks.is_worker = True
    config.commit()
    return tasks.app
