"""Workers whose tasks have an inbox, and whose messages arrive more than once."""

from contextlib import contextmanager

import pytest
from celery import group
from celery.exceptions import WorkerLostError
from celery.signals import after_task_publish
from pyramid.paster import get_app
from pyramid.scripting import prepare
from support import QUICK, as_ini, run, start_worker, wait_until

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
import inboxapp
from databases import database
from redis import Redis
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.acceptance

TIMEOUT = 60


@pytest.fixture
def url(tmp_path):
    with database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def ini(write_ini, broker, url):
    """Return a function that writes an ini for the application on a broker."""
    return lambda more="": write_ini(
        f"[app:main]\nuse = call:inboxapp:main\nsqlalchemy.url = {url}\n"
        "pyramid_tasks.inbox = true\npyramid_tasks.delivery = outbox\n"
        f"tm.manager_hook = pyramid_tm.explicit_manager\n{as_ini(broker)}\n{more}\n"
    )


@contextmanager
def requests(ini):
    """Give a request of the application, in this process."""
    registry = get_app(str(ini)).registry
    try:
        with prepare(registry=registry) as env:
            yield env["request"]
    finally:
        after_task_publish.disconnect(registry.get("twice"))


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_canvas(ini, broker, url, tmp_path):
    """With every message delivered twice, each task of a canvas takes effect once."""
    inboxapp.create_tables(url)
    ini = ini("inboxapp.twice = true")
    client, name = Redis.from_url(broker["broker_url"]), broker["task_default_queue"]

    def is_drained():
        return not (client.llen(f"{name}:{name}") or client.hlen(f"{name}:unacked"))

    with start_worker(ini, "-c", 2, *QUICK, cwd=tmp_path) as worker:
        with requests(ini) as request:

            def change(name):
                return request.task_signature(inboxapp.change, name)

            canvas = (
                change("first").set(link=change("linked"))
                | group(change("left"), change("right"))
                | change("body").set(link=change("last"))
            )
            result = request.defer_canvas(canvas)
            (body, header) = result.get(timeout=TIMEOUT)
        assert body == "body"
        assert sorted(name for name, *_ in header) == ["left", "right"]
        wait_until(is_drained, what=lambda: worker.output)
        engine = create_engine(url)
        with engine.connect() as connection:
            effects = connection.scalars(text("SELECT name FROM effects")).all()
        engine.dispose()
        names = ["body", "first", "last", "left", "linked", "right"]
        assert sorted(effects) == names
        assert worker.output.count("has run before; it is not repeated") >= 6
        assert "Traceback" not in worker.output


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_task_that_kills_its_process(ini, url, tmp_path):
    """It fails after some deliveries, and the worker goes on."""
    inboxapp.create_tables(url)
    ini = ini("pyramid_tasks.max_deliveries = 2")
    with start_worker(ini, "-c", 1, *QUICK, cwd=tmp_path) as worker:
        with requests(ini) as request:
            result = request.defer_task(inboxapp.die)
            with pytest.raises(WorkerLostError, match="was lost 2 times"):
                result.get(timeout=TIMEOUT)
            after = request.defer_task(inboxapp.change, "after")
            assert after.get(timeout=TIMEOUT) == ["after"]
        assert worker.output.count("received") == 4


@pytest.mark.parametrize("broker", ["filesystem"], indirect=True)
def test_missing_table(ini, tmp_path):
    """A worker without the table does not start, and says how to make it."""
    command = ("celery", "-A", "pyramid_tasks.loaders", "--ini", ini())
    worker = run(*command, "worker", cwd=tmp_path)
    assert worker.returncode == 1
    assert "has no table pyramid_tasks_inbox" in worker.stderr
    assert "outbox create" in worker.stderr
    assert "Traceback" not in worker.stderr
    assert run(*command, "outbox", "create", cwd=tmp_path).returncode == 0
    purged = run(*command, "inbox", "purge", cwd=tmp_path)
    assert purged.stdout == "Deleted: 0\n"
