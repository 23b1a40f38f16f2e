"""A task that a time limit, or any error, ends in the middle of a query."""

from __future__ import annotations

import signal
from functools import partial

import pytest
from celery.exceptions import SoftTimeLimitExceeded

pytest.importorskip("pyramid_tm")
pytest.importorskip("sqlalchemy")
pytest.importorskip("zope.sqlalchemy")
import zope.sqlalchemy
from databases import database
from pyramid.config import Configurator
from pyramid.scripting import prepare
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

# The time limit of a worker is an exception from the handler of a signal, as here.
SLEEP = {"postgresql": "SELECT pg_sleep(1)", "mariadb": "SELECT SLEEP(1)"}


def set_limit(connection, cursor, statement, *_):
    """Let the limit strike when the server is busy with the query, and not before."""
    if statement in SLEEP.values():
        signal.setitimer(signal.ITIMER_REAL, 0.3)


@pytest.fixture(params=SLEEP)
def engine(request, tmp_path):
    """Give an engine with one connection."""
    with database(request.param, tmp_path) as url:
        engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
        engine.sleep = text(SLEEP[request.param])
        engine.connect().close()
        event.listen(engine, "before_cursor_execute", set_limit)
        yield engine
        engine.dispose()


def joined(engine, request):
    session = Session(engine)
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def closed_by_callback(engine, request):
    session = Session(engine)
    request.add_finished_callback(lambda _: session.close())
    return session


@pytest.mark.parametrize("dbsession", [joined, closed_by_callback])
@pytest.mark.parametrize("retries", ["", "pyramid_retry"])
def test_limit_in_a_query(engine, dbsession, retries, caplog):
    """The task has its own error, and the pool has its connection back."""

    def strike(*_):
        raise SoftTimeLimitExceeded

    def work(request):
        before = signal.signal(signal.SIGALRM, strike)
        request.add_finished_callback(lambda _: signal.signal(signal.SIGALRM, before))
        request.dbsession.execute(engine.sleep)

    settings = {
        "celery.task_always_eager": True,
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "pyramid.includes": f"pyramid_tm {retries} pyramid_tasks.contrib.pyramid_tm",
        "retry.attempts": 2,
    }
    with Configurator(settings=settings) as config:
        config.add_request_method(partial(dbsession, engine), "dbsession", reify=True)
        config.register_task(work, name="work")
    with prepare(registry=config.registry) as env:
        result = env["request"].defer_task("work")
        assert isinstance(result.result, SoftTimeLimitExceeded)
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert " of work[" in caplog.text
