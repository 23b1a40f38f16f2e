"""An application that sells: each order is a row, and a task that must run for it.

``python outboxapp.py config.ini PORT`` serves it with a process for each request, so
that a request that kills its process harms no other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from socketserver import ForkingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import zope.sqlalchemy
from celery.signals import after_task_publish, before_task_publish
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid_tm import explicit_manager
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_tasks import task
from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.exceptions import BrokerUnavailable

TABLES = """
CREATE TABLE orders (id integer PRIMARY KEY, task_id varchar(40) NOT NULL);
CREATE TABLE runs (order_id integer, task_id varchar(40), pid integer);
"""


class Die:
    """A resource that kills the process when the others have committed."""

    def __init__(self, manager):
        self.transaction_manager = manager

    def sortKey(self):  # noqa: N802
        return "~~before the tasks"

    def tpc_begin(self, transaction):
        pass

    abort = commit = tpc_vote = tpc_abort = tpc_begin

    def tpc_finish(self, transaction):
        die()


def die(**_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_published(request):
    after_task_publish.connect(die)
    # Or the process of the request would end before its thread has sent.
    request.tm.get().addAfterCommitHook(lambda _: time.sleep(60))


def execute(request, sql, **values):
    """Change the database; a task has its id as a value."""
    if task := request.current_task:
        values["task_id"] = task.request.id
    request.dbsession.execute(text(sql), values)
    zope.sqlalchemy.mark_changed(request.dbsession, request.tm)


def place_order(request):
    """POST /orders/{id}?end=...: an order, and its task; then end in some way."""
    number, end = int(request.matchdict["id"]), request.GET.get("end")
    if end == "savepoint":
        savepoint = request.tm.savepoint()
    task_id = request.defer_task(fulfil, number).id
    execute(
        request, "INSERT INTO orders VALUES (:id, :task_id)", id=number, task_id=task_id
    )
    match end:
        case "committed":
            request.tm.get().join(Die(request.tm))
        case "published":
            die_when_published(request)
        case "savepoint":
            savepoint.rollback()
        case "doom":
            request.tm.doom()
        case "abort":
            request.tm.abort()
        case "error":
            raise ValueError(end)
    return {"task_id": task_id, "pid": os.getpid()}


@task
def fulfil(request, number):
    time.sleep(float(request.registry.settings.get("outboxapp.work", 0)))
    sql = "INSERT INTO runs VALUES (:id, :task_id, :pid)"
    execute(request, sql, id=number, pid=os.getpid())


def dbsession(request):
    session = Session(request.registry["engine"])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def with_database(config):
    """Give each request a transaction, and a session in it."""
    config.include("pyramid_tm")
    config.include("pyramid_tasks.contrib.pyramid_tm")
    url = config.get_settings()["sqlalchemy.url"]
    config.registry["engine"] = create_engine(url, pool_pre_ping=True)
    config.add_request_method(dbsession, reify=True)


def answer_error(error, request):
    return Response(f"{type(error).__name__}: {error}", status=503)


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include(with_database)
        config.add_route("order", "/orders/{id}", request_method="POST")
        config.add_view(place_order, route_name="order", renderer="json")
        config.add_exception_view(answer_error, context=BrokerUnavailable)
        config.scan(__name__)
        if pause := float(settings.get("outboxapp.publish_pause", 0)):
            # Kept by the registry, as signals keep weak references.
            config.registry["pause"] = lambda **_: time.sleep(pause)
            before_task_publish.connect(config.registry["pause"])
        app = config.make_wsgi_app()
    if number := settings.get("outboxapp.first_order"):
        place_first_order(app.registry, number)
    return app


def place_first_order(registry, number):
    """Use the database and the broker before the server forks."""
    with prepare(registry=registry) as env:
        request = env["request"]
        request.tm = explicit_manager(request)
        request.matchdict = {"id": number}
        with request.tm:
            place_order(request)


def create_tables(url, tables=TABLES):
    """Make tables, those of outbox and inbox too."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in tables.split(";")[:-1]:
            connection.execute(text(statement))
    metadata.create_all(engine)
    engine.dispose()


class Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Server(ForkingMixIn, WSGIServer):
    request_queue_size = 128


if __name__ == "__main__":
    # Once, rather than in the process of each request.
    import kombu.transport.pyamqp
    import kombu.transport.redis  # noqa: F401
    from pyramid.paster import get_app

    with make_server(
        "localhost", int(sys.argv[2]), get_app(sys.argv[1]), Server, Handler
    ) as server:
        server.serve_forever()
