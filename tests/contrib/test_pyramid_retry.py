"""pyramid_retry retries tasks as it retries views."""

from __future__ import annotations

import pytest
from pyramid.config import Configurator
from pyramid.scripting import prepare

pytest.importorskip("pyramid_retry")
from pyramid_retry import IBeforeRetry, RetryableException, is_last_attempt


def run(task, includes, on_retry=lambda event: None):
    """Run a task in an application with pyramid_retry."""
    settings = {
        "celery.task_always_eager": True,
        "celery.task_eager_propagates": True,
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "retry.attempts": "3",
    }
    with Configurator(settings=settings) as config:
        for name in includes:
            config.include(name)
        config.register_task(task, name="task")
        config.add_subscriber(on_retry, IBeforeRetry)
    with prepare(registry=config.registry) as env:
        return env["request"].defer_task("task").get()


BOTH_ORDERS = [
    ("pyramid_retry", "pyramid_tm", "pyramid_tasks.contrib.pyramid_tm"),
    ("pyramid_tasks.contrib.pyramid_tm", "pyramid_tm", "pyramid_retry"),
]


@pytest.mark.parametrize(
    ("includes", "error", "failures", "is_last"),
    [
        *(
            (order, RetryableException, failures, [False, False, True])
            for order in BOTH_ORDERS
            for failures in (2, 3)
        ),
        (BOTH_ORDERS[0], ValueError, 3, [False]),
        (BOTH_ORDERS[0][1:], RetryableException, 3, [True]),  # without pyramid_retry
    ],
)
def test_attempts(includes, error, failures, is_last):
    """A retryable error gives another attempt, with a fresh request, and an event.

    The error of the last attempt goes to Celery; another error has one attempt.
    """
    requests, last, events, left = [], [], [], []

    def task(request):
        assert left == requests
        requests.append(request)
        request.add_finished_callback(left.append)
        last.append(is_last_attempt(request))
        if len(requests) <= failures:
            raise error
        return "done"

    if failures == 2:
        assert run(task, includes, events.append) == "done"
    else:
        with pytest.raises(error):
            run(task, includes, events.append)
    assert len({id(request) for request in requests}) == len(requests)
    assert left == requests
    assert last == is_last
    assert [event.request for event in events] == requests[:-1]


@pytest.mark.server
def test_serialization_failure_of_postgresql(tmp_path):
    """A task whose SERIALIZABLE transaction conflicts with another runs again."""
    pytest.importorskip("psycopg")
    pytest.importorskip("zope.sqlalchemy")
    import zope.sqlalchemy
    from databases import database
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    total = text("SELECT sum(value) FROM counter")
    insert = text("INSERT INTO counter VALUES (:value)")
    attempts = []

    def task(request):
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        attempts.append(is_last_attempt(request))
        value = session.execute(total).scalar()
        if len(attempts) == 1:
            # Another transaction reads what this one writes, and the other way round:
            # there is no order in which both could have run.
            with engine.begin() as other:
                other.execute(insert, {"value": other.execute(total).scalar() + 1})
        session.execute(insert, {"value": value + 1})
        zope.sqlalchemy.mark_changed(session)
        return value

    with database("postgresql", tmp_path) as url:
        engine = create_engine(url, isolation_level="SERIALIZABLE")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE counter (value integer)"))
            connection.execute(insert, {"value": 1})
        assert run(task, BOTH_ORDERS[0]) == 3
        assert attempts == [False, False]
        with engine.begin() as connection:
            assert connection.execute(total).scalar() == 7
        engine.dispose()
