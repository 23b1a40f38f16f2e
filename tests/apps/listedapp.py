"""An application for ptasks to look at: with derivers, a schedule, and mistakes."""

import sys

from celery.schedules import crontab, schedule
from pyramid.config import Configurator

from pyramid_tasks import task


@task
def add(request, x, y): ...


@task(name="mail", bind=True, acks_late=True, autoretry_for=(OSError,), color="red")
def send_mail(self, request, to): ...


def timed(task, info):
    return task


def logged(task, info):
    return task


def route(name, args, kwargs, options, task=None, **kw):
    """A router that needs to see a call."""
    return {"queue": args[0]} if name == "mail" else None


class Never(schedule):
    """A schedule that looks like any other one until beat asks it."""

    def remaining_estimate(self, last_run_at):
        raise RuntimeError("no day is the 31st of February")


def configure(settings):
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.add_task_deriver(timed)
    config.add_task_deriver(logged, over="timed")
    config.scan(__name__)
    config.add_periodic_task(crontab(hour=3, minute=0), send_mail, ["x"], name="night")
    config.add_periodic_task(30, add, (1,), {"y": 2}, name="often", expires=10)
    return config


def main(global_config, **settings):
    return configure(settings).make_wsgi_app()


def unnamed(global_config, **settings):
    """Mistakes of each directive, in the directive and when it is committed."""
    config = configure(settings)
    config.register_task(lambda request: None)
    config.add_periodic_task("99 * * * *", add, (1, 2))
    config.add_periodic_task(30, "ad", (1, 2))
    config.add_periodic_task(30, add, (1, 2, 3))
    config.add_periodic_task(Never(1), add, (1, 2), name="never")
    config.add_fork_safe(12)
    config.add_task_deriver(timed, name="TASK")
    return config.make_wsgi_app()


def without_introspection(global_config, **settings):
    config = Configurator(settings=settings, introspection=False)
    config.include("pyramid_tasks")
    config.register_task(add, name="add")
    return config.make_wsgi_app()


def with_table(global_config, **settings):
    """An application with the session and the table of the outbox."""
    from sqlalchemy import MetaData

    from pyramid_tasks.contrib.outbox_table import outbox_table

    with_table.metadata = MetaData()
    outbox_table(with_table.metadata)
    config = configure(settings)
    config.add_request_method(lambda request: None, "dbsession", reify=True)
    return config.make_wsgi_app()


def with_inbox(global_config, **settings):
    """An application whose tasks have an inbox, and defer in several ways."""

    def defers(request):
        request.defer_task("mail")
        request.defer_task_with_options("mail", delivery="immediate")
        request.defer_task_with_options("mail", delivery="outbox")

    def sends(request):
        request.current_task.delay()

    config = configure(settings)
    config.add_request_method(lambda request: None, "dbsession", reify=True)
    config.register_task(defers, name="defers", inbox=True)
    config.register_task(sends, name="sends", inbox=True, expires=3601)
    config.add_periodic_task(60, "sends", countdown=7200)
    return config.make_wsgi_app()


def exits(global_config, **settings):
    sys.exit(0)
