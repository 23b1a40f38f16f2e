"""pyramid_retry retries tasks as it retries views."""

from __future__ import annotations

import pytest
from pyramid.config import Configurator
from pyramid.scripting import prepare
from support import need_service, unique

pytest.importorskip("pyramid_retry")
from pyramid_retry import IBeforeRetry, RetryableException, is_last_attempt


@pytest.fixture
def run():
    """Return a function that runs a task in an application with pyramid_retry."""

    def run(task, *includes, configure=lambda config: None, **options):
        settings = {
            "celery.task_always_eager": True,
            "celery.task_eager_propagates": True,
            "tm.manager_hook": "pyramid_tm.explicit_manager",
            "retry.attempts": "3",
        }
        with Configurator(settings=settings) as config:
            for name in includes:
                config.include(name)
            config.register_task(task, name="task", **options)
            configure(config)
        with prepare(registry=config.registry) as env:
            return env["request"].defer_task("task").get()

    return run


BOTH_ORDERS = [
    ("pyramid_retry", "pyramid_tm", "pyramid_tasks.contrib.pyramid_tm"),
    ("pyramid_tasks.contrib.pyramid_tm", "pyramid_tm", "pyramid_retry"),
]


@pytest.mark.parametrize("includes", BOTH_ORDERS)
def test_retryable_error_runs_the_task_again(run, includes):
    """A retryable error gives another attempt, with a fresh request, and an event."""
    requests, last, events = [], [], []

    def task(request):
        requests.append(request)
        last.append(is_last_attempt(request))
        if len(requests) < 3:
            raise RetryableException
        return "done"

    def configure(config):
        config.add_subscriber(events.append, IBeforeRetry)

    assert run(task, *includes, configure=configure) == "done"
    assert len({id(request) for request in requests}) == 3
    assert last == [False, False, True]
    assert [event.request for event in events] == requests[:2]


@pytest.mark.parametrize(
    ("includes", "error", "is_last"),
    [
        *((order, RetryableException, [False, False, True]) for order in BOTH_ORDERS),
        (BOTH_ORDERS[0], ValueError, [False]),
        (BOTH_ORDERS[0][1:], RetryableException, [True]),
    ],
    ids=["this order", "that order", "another error", "without pyramid_retry"],
)
def test_last_attempt_raises(run, includes, error, is_last):
    """The error of the last attempt goes to Celery; another error has one attempt."""
    attempts = []

    def task(request):
        attempts.append(is_last_attempt(request))
        raise error

    with pytest.raises(error):
        run(task, *includes)
    assert attempts == is_last


@pytest.mark.server
def test_serialization_failure_of_postgresql(run):
    """A task whose SERIALIZABLE transaction conflicts with another runs again."""
    need_service("PostgreSQL", 5432, "service postgresql start")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    zope_sqlalchemy = pytest.importorskip("zope.sqlalchemy")
    pytest.importorskip("psycopg")
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://postgres@localhost/postgres",
        isolation_level="SERIALIZABLE",
    )
    table = unique("counter")
    execute = sqlalchemy.text
    total = execute(f"SELECT sum(value) FROM {table}")
    insert = execute(f"INSERT INTO {table} VALUES (:value)")
    attempts = []

    def task(request):
        session = Session(engine)
        zope_sqlalchemy.register(session, transaction_manager=request.tm)
        attempts.append(is_last_attempt(request))
        value = session.execute(total).scalar()
        if len(attempts) == 1:
            # Another transaction reads what this one writes, and the other way round:
            # there is no order in which both could have run.
            with engine.begin() as other:
                other.execute(insert, {"value": other.execute(total).scalar() + 1})
        session.execute(insert, {"value": value + 1})
        zope_sqlalchemy.mark_changed(session)
        return value

    try:
        with engine.begin() as connection:
            connection.execute(execute(f"CREATE TABLE {table} (value integer)"))
            connection.execute(insert, {"value": 1})
        assert run(task, *BOTH_ORDERS[0]) == 3
        assert attempts == [False, False]
        with engine.begin() as connection:
            assert connection.execute(total).scalar() == 7
    finally:
        with engine.begin() as connection:
            connection.execute(execute(f"DROP TABLE IF EXISTS {table}"))
        engine.dispose()
