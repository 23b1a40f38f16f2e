"""Captured tasks and transactions: what is committed is listed, and runs by itself."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
from pyramid.router import Router
from pyramid.scripting import prepare
from webtest import TestApp as WebTestApp

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
import transaction
import zope.sqlalchemy
from databases import database
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from transactional import TransactionalApp

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.exceptions import OutboxTableMissing
from pyramid_tasks.testing import capture

MANAGERS = {"explicit": "pyramid_tm.explicit_manager", "implicit": None}


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    """An engine of each database, with a table, and none for an outbox."""
    with database(request.param, tmp_path) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE orders (id INTEGER, state TEXT)"))
        yield engine
        engine.dispose()


def create(request):
    """Store an order, defer its task, and end as the test says."""
    request.dbsession.execute(text("INSERT INTO orders VALUES (7, 'new')"))
    zope.sqlalchemy.mark_changed(request.dbsession)
    request.defer_task(ship, 7)
    match request.params.get("end"):
        case "abort":
            request.tm.abort()
            request.tm.begin()
        case "doom":
            request.tm.doom()
        case "error":
            raise ValueError("no")
    return "done"


def ship(request, order, *, defer=True):
    """Change an order, in a transaction that has nothing to do with the view's."""
    update = text("UPDATE orders SET state = 'shipped' WHERE id = :id")
    found = request.dbsession.execute(update, {"id": order})
    zope.sqlalchemy.mark_changed(request.dbsession)
    if defer:
        request.defer_task(ship, order, defer=False)
    return found.rowcount


def break_(request):
    ship(request, 7)
    raise ValueError("broken")


class App(TransactionalApp):
    """An application whose view stores an order; its broker does not answer."""

    def __init__(self, engine, *, manager="explicit", delivery="commit", inbox=False):
        settings = {
            "celery.broker_url": "redis://localhost:1/0",
            "pyramid_tasks.delivery": delivery,
            "pyramid_tasks.inbox": inbox,
            "tm.manager_hook": MANAGERS[manager],
        }
        super().__init__(engine, settings, None)

    def add_tasks(self, config):
        config.register_task(ship)
        config.register_task(break_)
        config.add_view(create, renderer="string")

    def dbsession(self, request):
        return request.environ.get("app.dbsession") or super().dbsession(request)

    def get(self, environ=None, **params):
        WebTestApp(Router(self.registry), extra_environ=environ).get("/", params)

    @contextmanager
    def request(self):
        with prepare(registry=self.registry) as env:
            yield env["request"]


def states(engine):
    with engine.connect() as connection:
        return connection.scalars(text("SELECT state FROM orders")).all()


def args_of(tasks):
    return [task.args for task in tasks]


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("delivery", ["commit", "outbox"])
def test_committed(engine, manager, delivery):
    """A committed task is listed; each runs in its own transaction, after the view's.

    No broker is asked, and no outbox needed.
    """
    app = App(engine, manager=manager, delivery=delivery)
    with capture(app.registry) as deferred:
        app.get()
        assert args_of(deferred.tasks) == [(7,)]
        assert deferred.uncommitted == []
        assert states(engine) == ["new"]
        assert deferred.run(1) == [1]
        assert states(engine) == ["shipped"]
        assert deferred.run() == [1]
    assert len(deferred.tasks) == 2


def test_inbox_without_its_table(engine):
    """A task with an inbox whose table is missing fails with the remedy."""
    app = App(engine, inbox=True)
    with capture(app.registry) as deferred:
        app.get()
        with pytest.raises(OutboxTableMissing, match="pyramid_tasks_inbox.*create_all"):
            deferred.run()
    assert states(engine) == ["new"]


@pytest.mark.parametrize("end", ["abort", "doom", "error"])
@pytest.mark.parametrize("delivery", ["commit", "outbox"])
def test_rolled_back(engine, end, delivery):
    """A task that was rolled back is not listed, but where an assertion fails."""
    app = App(engine, delivery=delivery)
    with capture(app.registry) as deferred:
        with pytest.raises(ValueError, match="no") if end == "error" else nullcontext():
            app.get(end=end)
        assert deferred.tasks == []
        assert deferred.run() == []
    assert states(engine) == []
    assert args_of(deferred.uncommitted) == [(7,)]
    deferred.assert_not_deferred(ship)
    with pytest.raises(AssertionError, match=r"Not committed.*:\n  .*ship\(7\)"):
        deferred.assert_deferred(ship)


@pytest.mark.parametrize("outer", [capture, nullcontext])
def test_savepoint(outer):
    """What was deferred after a savepoint is not listed once that is rolled back.

    What is deferred outside a transaction, or at once, is listed at once. The inner one
    of two captures knows of transactions as well.
    """
    app = App(None)
    registry = app.registry
    with outer(registry), capture(registry) as deferred, app.request() as request:
        request.defer_task(ship, 0)
        with request.tm:
            request.defer_task(ship, 1)
            savepoint = request.tm.savepoint()
            request.defer_tasks(ship, [(2,), (3,)])
            savepoint.rollback()
            request.defer_canvas(request.task_signature(ship, 4))
            request.defer_task_with_options(ship, (5,), delivery="immediate")
            assert args_of(deferred.tasks) == [(0,), (5,)]
        assert args_of(deferred.tasks) == [(0,), (1,), (4,), (5,)]


@pytest.mark.parametrize("manager", MANAGERS)
def test_failing_task(engine, manager):
    """A task that fails is rolled back by itself."""
    app = App(engine, manager=manager)
    with capture(app.registry) as deferred:
        app.get()
        with app.request() as request:
            request.defer_task(break_)
        assert deferred.run(1) == [1]
        with pytest.raises(ValueError, match="broken"):
            deferred.run(1)
        # Deferred by the task before; what the broken one deferred is gone.
        assert deferred.run() == [1]
    assert [task.kwargs for task in deferred.find(ship)] == [{}, {"defer": False}]


def environ_of_test(engine):
    """Return an environ with a transaction that never commits, and its session."""
    tm = transaction.TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    dbsession = Session(engine)
    zope.sqlalchemy.register(dbsession, transaction_manager=tm)
    return {"tm.active": True, "tm.manager": tm, "app.dbsession": dbsession}


def test_transaction_of_the_test(engine):
    """A test with a transaction that never commits has its tasks run inside that."""
    app = App(engine)
    environ = environ_of_test(engine)
    with capture(app.registry, environ) as deferred:
        app.get(environ)
        assert args_of(deferred.tasks) == [(7,)]
        assert deferred.run() == [1, 1]
        query = text("SELECT state FROM orders")
        assert environ["app.dbsession"].scalars(query).all() == ["shipped"]
    environ["tm.manager"].abort()
    assert states(engine) == []


@pytest.mark.parametrize("inbox", [True, False])
@pytest.mark.parametrize("of_test", [True, False])
def test_twice(engine, inbox, of_test):
    """A task runs twice, as a broker might deliver it; an inbox makes that once."""
    app = App(engine, inbox=inbox)
    metadata.create_all(engine)
    environ = environ_of_test(engine) if of_test else {}
    with capture(app.registry, environ) as deferred:
        app.get(environ)
        assert deferred.run(1, twice=True) == [1]
    assert len(deferred.find(ship, 7, defer=False)) == (1 if inbox else 2)
    if of_test:
        environ["tm.manager"].abort()
