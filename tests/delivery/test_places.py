"""When a deferred task is sent, by the place in a transaction where it is deferred.

The claims hold for both deliveries that wait, on each database.
"""

from __future__ import annotations

import logging

import pytest
import zope.sqlalchemy
from databases import database
from pyramid.scripting import prepare
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from transaction.interfaces import (
    DoomedTransaction,
    ISynchronizer,
    TransactionFailedError,
    TransientError,
)
from transactional import Resource, TransactionalApp
from zope.interface import implementer

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.exceptions import DeferError, ResultNotReady


def record(request, x): ...


class App(TransactionalApp):
    def add_tasks(self, config):
        config.register_task(record, name="record")
        config.register_task(record, name="ignored", ignore_result=True)
        limits = {"soft_time_limit": 20, "time_limit": 10}
        config.register_task(record, name="limited", **limits)

    def sent(self):
        """Return the arguments of the tasks that were sent, in order."""
        return [message.payload[0][0] for message in self.received()]


@pytest.fixture(params=["commit", "outbox"])
def delivery(request):
    return request.param


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def app(request, delivery, tmp_path):
    with database(request.param, tmp_path) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        settings = {"pyramid_tasks.delivery": delivery}
        settings["celery.broker_transport_options"] = {"polling_interval": 0.01}
        yield App(engine, settings, None)
        engine.dispose()


@pytest.fixture
def request_(app):
    with prepare(registry=app.registry) as env:
        yield env["request"]


@pytest.fixture
def defer(request_):
    return lambda x: request_.defer_task("record", x)


ONE_DATABASE = pytest.mark.parametrize("app", ["sqlite"], indirect=True)


def savepoints(request, kind):
    """Return a function that makes a savepoint, and returns what rolls it back."""
    if kind == "scoped":
        scoped = scoped_session(sessionmaker(request.dbsession.get_bind()))
        zope.sqlalchemy.register(scoped, transaction_manager=request.tm)
        request.dbsession = scoped
    session = request.dbsession
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    if kind == "tm":
        if is_sqlite:
            pytest.skip("zope.sqlalchemy has no savepoints on SQLite")
        session.execute(text("SELECT 1"))
        return lambda: request.tm.savepoint().rollback
    if is_sqlite:
        # The driver does not begin a transaction before a savepoint.
        session.execute(text("DELETE FROM pyramid_tasks_outbox WHERE id = 0"))
    return lambda: session.begin_nested().rollback


def test_without_a_transaction(app, request_, defer):
    """Where no transaction has begun, a task is sent at once."""
    defer(1)
    assert app.sent() == [1]
    with request_.tm:
        defer(2)
        assert app.sent() == []
    assert app.sent() == [2]
    defer(3)
    assert app.sent() == [3]


@pytest.mark.parametrize("kind", ["tm", "session", "scoped"])
def test_savepoints(app, request_, defer, kind):
    """What was deferred after a savepoint goes with it; all else is committed."""
    with request_.tm:
        savepoint = savepoints(request_, kind)
        roll_back = savepoint()
        defer("after the first, before anything else")
        roll_back()
        defer(1)
        roll_back = savepoint()
        defer("after the second")
        savepoint()
        dropped = defer("after one inside the second")
        roll_back()
        defer(2)
        savepoint()
        defer(3)
    assert app.sent() == [1, 2, 3]
    with pytest.raises(ResultNotReady, match="aborted, or rolled back"):
        dropped.get(timeout=1)


def test_released_savepoints(app, request_, defer):
    """A savepoint that is released belongs to the one around it."""
    with request_.tm:
        savepoints(request_, "session")
        session = request_.dbsession
        with session.begin_nested():
            defer(1)
        outer = session.begin_nested()
        with session.begin_nested():
            defer("in one that is rolled back with the outer one")
        outer.rollback()
    assert app.sent() == [1]


@pytest.mark.parametrize("how", ["expunge_all", "close", "expire_all", "rollback"])
def test_session_that_is_emptied(app, request_, defer, how):
    """Whatever happens to the session, its transaction commits the task."""
    with request_.tm:
        defer(1)
        getattr(request_.dbsession, how)()
        defer(2)
    assert app.sent() == [1, 2]
    assert app.engine.pool.checkedout() == 0


def test_session_that_is_committed(app, request_, defer):
    """A task is sent once if the application commits the session by itself."""
    with request_.tm:
        request_.dbsession = Session(app.engine)  # which zope.sqlalchemy does not guard
        defer(1)
        request_.dbsession.commit()
    assert app.sent() == [1]
    assert app.waiting() == 0
    assert app.engine.pool.checkedout() == 0


@pytest.mark.parametrize("before", [True, False], ids=["after a task", "alone"])
@pytest.mark.parametrize("hook", ["BeforeCommit", "AfterCommit"])
def test_commit_hooks(app, request_, defer, hook, before):
    """A task is sent with the commit, or after it at once."""
    with request_.tm as transaction:
        if before:
            defer(1)
        getattr(transaction, f"add{hook}Hook")(lambda *_: defer(2))
    # With the outbox, a thread sends what was committed.
    assert sorted(app.sent()) == [1, 2][not before :]


@pytest.mark.parametrize("before", [True, False], ids=["after a task", "alone"])
def test_hooks_of_an_abort(app, request_, defer, before):
    """A task of a before-abort hook is dropped, one of an after-abort hook is sent."""
    transaction = request_.tm.begin()
    transaction.addAfterAbortHook(lambda: defer(2))
    transaction.addBeforeAbortHook(lambda: defer("before"))
    if before:
        result = defer("the transaction")
    results = []
    transaction.addAfterAbortHook(lambda: results.append(defer(3)))
    request_.tm.abort()
    assert app.sent() == [2, 3]
    assert results[0].sent
    if before:
        with pytest.raises(ResultNotReady, match="was not sent: the transaction"):
            result.get(timeout=1)


def test_hook_after_a_commit_that_fails(app, request_, defer):
    """An after-commit hook is called, too, and its task is sent at once."""
    transaction = request_.tm.begin()
    transaction.join(Resource("tpc_vote", lambda: 1 / 0))
    transaction.addAfterCommitHook(lambda success: success or defer(2))
    result = defer("the transaction")
    with pytest.raises(ZeroDivisionError):
        request_.tm.commit()
    request_.tm.abort()
    assert result.dropped
    assert app.sent() == [2]


def test_after_a_commit_that_fails(app, request_, defer):
    """Until somebody aborts it, the transaction takes no task, and says why."""
    request_.tm.begin().join(Resource("tpc_vote", lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        request_.tm.commit()
    with pytest.raises(TransactionFailedError, match="ZeroDivisionError"):
        defer(1)
    request_.tm.abort()
    assert app.sent() == []


@implementer(ISynchronizer)
class Synchronizer:
    def __init__(self, **calls):
        self.calls = calls

    def newTransaction(self, transaction): ...  # noqa: N802 the interface

    def __getattr__(self, name):
        return lambda transaction: self.calls.get(name, bool)()


@pytest.mark.parametrize(
    ("end", "expected"), [("commit", [1, 2]), ("abort", [2]), ("failure", [2])]
)
def test_synchronizers(app, request_, defer, end, expected):
    """beforeCompletion is part of the transaction, afterCompletion comes after it."""
    synchronizer = Synchronizer(
        beforeCompletion=lambda: defer(1), afterCompletion=lambda: defer(2)
    )
    request_.tm.registerSynch(synchronizer)
    transaction = request_.tm.begin()
    if end == "failure":
        transaction.join(Resource("tpc_vote", lambda: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            request_.tm.commit()
        request_.tm.unregisterSynch(synchronizer)
        end = "abort"
    getattr(request_.tm, end)()
    assert sorted(app.sent()) == expected


@pytest.mark.parametrize("phase", ["tpc_begin", "commit", "tpc_vote", "tpc_finish"])
def test_two_phase_commit(app, request_, defer, phase):
    """A resource that defers while it commits gets an error, which aborts."""
    request_.tm.begin()
    defer(1)
    request_.tm.get().join(Resource(phase, lambda: defer(2)))
    with pytest.raises(DeferError, match="while the transaction commits"):
        request_.tm.commit()
    request_.tm.abort()
    assert app.sent() == []


@pytest.mark.parametrize("doomed", [False, True])
def test_abort(app, request_, defer, doomed):
    """A transaction that aborts sends nothing, and the next one is another."""
    request_.tm.begin()
    result = defer("the transaction")
    if doomed:
        request_.tm.doom()
        defer("the doomed transaction")
        with pytest.raises(DoomedTransaction):
            request_.tm.commit()
    request_.tm.abort()
    with pytest.raises(ResultNotReady, match="was aborted"):
        result.get(timeout=1)
    with request_.tm:
        defer(1)
    assert app.sent() == [1]


def test_attempts(app, request_, defer):
    """The attempt that commits sends its own tasks."""
    numbers = iter(range(3))

    def attempt():
        number = next(numbers)
        defer(number)
        if number < 2:
            raise TransientError

    request_.tm.run(attempt)
    assert app.sent() == [2]


def test_session_that_nobody_joined(app, request_, defer):
    """A session that is not part of the transaction becomes one, for its row."""
    with Session(app.engine) as session:
        request_.dbsession = session
        with request_.tm:
            defer(1)
    assert app.sent() == [1]


@pytest.mark.parametrize("environ", [{}, {"tm.active": True}], ids=str)
def test_transaction_that_nobody_ends(app, caplog, environ):
    """It is told when its request ends, if it is the transaction of the request."""
    caplog.set_level(logging.WARNING)
    with prepare(registry=app.registry) as env:
        request = env["request"]
        request.environ.update(environ)
        request.tm.begin()
        request.defer_task("record", 1)
        request.defer_task("record", 2)
    told = "2 deferred tasks are not sent: the request ended" in caplog.text
    assert told is not bool(environ)
    request.tm.abort()
    assert app.sent() == []


@ONE_DATABASE
def test_two_applications(app, request_, delivery, tmp_path):
    """Each sends its own tasks, also where both take part in one transaction."""
    engine = create_engine(f"sqlite:///{tmp_path}/other.sqlite")
    metadata.create_all(engine)
    other = App(engine, {"pyramid_tasks.delivery": delivery}, None)
    with prepare(registry=other.registry) as env, request_.tm:
        env["request"].environ["tm.manager"] = request_.tm
        request_.defer_task("record", 1)
        env["request"].defer_task("record", "other")
        request_.defer_task("record", 2)
    assert app.sent() == [1, 2]
    assert other.sent() == ["other"]
    engine.dispose()


@ONE_DATABASE
def test_result_that_is_ignored(app, request_):
    """As in Celery, nobody waits for it."""
    with request_.tm:
        of_task = request_.defer_task("ignored", 1)
        of_call = request_.defer_task_with_options("record", [2], ignore_result=True)
        assert of_task.ignored is of_call.ignored is True
        assert of_task.get() is of_call.get() is None
    assert app.sent() == [1, 2]
    assert of_task.get() is of_call.get() is None


@ONE_DATABASE
def test_limits_that_do_not_fit(app, request_):
    """What Celery refuses when it sends is refused when it is deferred."""
    with request_.tm:
        with pytest.raises(ValueError, match="limited: soft_time_limit must be less"):
            request_.defer_task("limited", 1)
        s = request_.task_signature
        with pytest.raises(ValueError, match="soft_time_limit must be less"):
            request_.defer_canvas(s("record", 1) | s("limited"))
    assert app.sent() == []
