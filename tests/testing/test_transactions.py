"""Captured tasks and transactions: what is committed is listed, and runs by itself."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pyramid.config import Configurator
from pyramid.scripting import prepare
from webtest import TestApp as WebTestApp

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
import transaction
import zope.sqlalchemy
from databases import database
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.testing import capture

EXPLICIT = "pyramid_tm.explicit_manager"
IMPLICIT = None


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
    insert = text("INSERT INTO orders VALUES (7, 'new')")
    request.dbsession.execute(insert)
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
        case "savepoint":
            savepoint = request.tm.savepoint()
            request.defer_task(ship, 8)
            savepoint.rollback()
    return "done"


def ship(request, order, *, defer=True):
    """Change an order, in a transaction that has nothing to do with the view's."""
    found = request.dbsession.execute(
        text("UPDATE orders SET state = 'shipped' WHERE id = :id"), {"id": order}
    )
    zope.sqlalchemy.mark_changed(request.dbsession)
    if defer:
        request.defer_task(ship, order, defer=False)
    return found.rowcount


def break_(request):
    ship(request, 7)
    raise ValueError("broken")


def make_app(engine, manager, delivery="commit", **settings):
    settings |= {
        "celery.broker_url": "redis://localhost:1/0",
        "pyramid_tasks.delivery": delivery,
    }
    if manager:
        settings["tm.manager_hook"] = manager

    def dbsession(request):
        if given := request.environ.get("app.dbsession"):
            return given
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.add_request_method(dbsession, reify=True)
        config.register_task(ship)
        config.register_task(break_)
        config.add_view(create, renderer="string")
        return config.make_wsgi_app()


def states(engine):
    with engine.connect() as connection:
        return [row.state for row in connection.execute(text("SELECT * FROM orders"))]


@contextmanager
def request_of(app):
    with prepare(registry=app.registry) as env:
        yield env["request"]


@pytest.mark.parametrize("manager", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
@pytest.mark.parametrize("delivery", ["commit", "outbox"])
def test_committed(engine, manager, delivery):
    """A committed task is listed; each runs in its own transaction, after the view's.

    No broker is asked, and no outbox needed.
    """
    app = make_app(engine, manager, delivery)
    with capture(app.registry) as deferred:
        WebTestApp(app).get("/")
        assert [task.args for task in deferred.tasks] == [(7,)]
        assert deferred.uncommitted == []
        assert states(engine) == ["new"]
        assert deferred.run(1) == [1]
        assert states(engine) == ["shipped"]
        assert deferred.run() == [1]
    assert len(deferred.tasks) == 2


@pytest.mark.parametrize("end", ["abort", "doom", "error"])
@pytest.mark.parametrize("delivery", ["commit", "outbox"])
def test_rolled_back(engine, end, delivery):
    """A task that was rolled back is not listed, but where an assertion fails."""
    app = make_app(engine, EXPLICIT, delivery)
    with capture(app.registry) as deferred:
        if end == "error":
            with pytest.raises(ValueError, match="no"):
                WebTestApp(app).get("/", {"end": end})
        else:
            WebTestApp(app).get("/", {"end": end})
        assert deferred.tasks == []
        assert deferred.run() == []
    assert states(engine) == []
    assert [task.args for task in deferred.uncommitted] == [(7,)]
    deferred.assert_not_deferred(ship)
    with pytest.raises(AssertionError, match=r"Not committed.*:\n  .*ship\(7\)"):
        deferred.assert_deferred(ship)


def test_savepoint(tmp_path):
    """What was deferred after a savepoint is not listed once that is rolled back."""
    app = make_app(None, EXPLICIT)
    with request_of(app) as request, capture(app.registry) as deferred:
        with request.tm:
            request.defer_task(ship, 1)
            savepoint = request.tm.savepoint()
            request.defer_tasks(ship, [(2,), (3,)])
            savepoint.rollback()
            request.defer_canvas(request.task_signature(ship, 4))
            assert deferred.tasks == []
        assert [task.args for task in deferred.tasks] == [(1,), (4,)]


def test_without_transaction():
    """What is deferred outside a transaction, or at once, is listed at once."""
    app = make_app(None, EXPLICIT)
    with request_of(app) as request, capture(app.registry) as deferred:
        request.defer_task(ship, 1)
        with request.tm:
            request.defer_task_with_options(ship, (2,), delivery="immediate")
            assert [task.args for task in deferred.tasks] == [(1,), (2,)]


def test_nested_captures():
    """The inner one of two captures knows of transactions as well."""
    app = make_app(None, EXPLICIT)
    with capture(app.registry), capture(app.registry) as deferred:
        with request_of(app) as request, request.tm:
            request.defer_task(ship, 1)
            assert deferred.tasks == []
        assert len(deferred.tasks) == 1


@pytest.mark.parametrize("manager", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_failing_task(engine, manager):
    """A task that fails is rolled back by itself."""
    app = make_app(engine, manager)
    with capture(app.registry) as deferred:
        WebTestApp(app).get("/")
        with request_of(app) as request:
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
    app = make_app(engine, EXPLICIT)
    environ = environ_of_test(engine)
    with capture(app.registry, environ) as deferred:
        WebTestApp(app, extra_environ=environ).get("/")
        assert [task.args for task in deferred.tasks] == [(7,)]
        assert deferred.run() == [1, 1]
        query = text("SELECT state FROM orders")
        assert environ["app.dbsession"].scalars(query).all() == ["shipped"]
    environ["tm.manager"].abort()
    assert states(engine) == []


@pytest.mark.parametrize("inbox", [True, False])
@pytest.mark.parametrize("of_test", [True, False])
def test_twice(engine, inbox, of_test):
    """A task runs twice, as a broker might deliver it; an inbox makes that once."""
    app = make_app(engine, EXPLICIT, **{"pyramid_tasks.inbox": inbox})
    environ = {}
    metadata.create_all(engine)
    if of_test:
        environ = environ_of_test(engine)
    with capture(app.registry, environ) as deferred:
        WebTestApp(app, extra_environ=environ).get("/")
        assert deferred.run(1, twice=True) == [1]
    assert len(deferred.find(ship, 7, defer=False)) == (1 if inbox else 2)
    if of_test:
        environ["tm.manager"].abort()
