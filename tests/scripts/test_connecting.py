"""Which servers ``ptasks --check --connect`` asks."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from celery import Celery
from celery.backends.cache import CacheBackend
from sqlalchemy import create_engine, event
from transactional import TransactionalApp

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.scripts.connecting import connect


class App(TransactionalApp):
    def add_tasks(self, config):
        pass

    def answers(self):
        """Return the first words about each server, and whether it will do."""
        return [(each["server"], each["ok"]) for each in connect(self.celery)]


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    metadata.create_all(engine)
    return engine


RESULTS = {"celery.result_backend": "cache+memory://"}
OUTBOX = {"pyramid_tasks.delivery": "outbox"} | RESULTS


def test_servers(engine):
    """Those that the application uses are asked, and no others."""
    broker = ("The broker memory://localhost/", True)
    app = App(engine, {}, None)
    assert app.answers() == [broker]
    eager = {"celery.task_always_eager": True, "celery.result_backend": "rpc://"}
    assert App(engine, eager, None).answers() == []
    shop = (f"The database {engine.url}", True)
    results = ("The result backend cache+memory:///", True)
    assert App(engine, OUTBOX, None).answers() == [broker, results, shop]


def test_result_is_forgotten(engine, tmp_path):
    """A backend has no result any more once it was asked whether it keeps one."""
    (tmp_path / "results").mkdir()
    url = (tmp_path / "results").as_uri()
    app = App(engine, {"celery.result_backend": url}, None)
    assert (f"The result backend {url}", True) in app.answers()
    assert list((tmp_path / "results").iterdir()) == []


def test_what_a_database_is_asked(engine):
    """A row is written, read, changed and deleted, and nothing stays."""
    said = []
    event.listen(
        engine, "before_cursor_execute", lambda *args: said.append(args[2].split()[0])
    )
    answer = connect(App(engine, OUTBOX, None).celery)[-1]
    assert answer["message"].startswith("answers: sqlite ")
    assert said[-8:] == ["INSERT", "SELECT", "UPDATE", "DELETE"] * 2
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            assert connection.execute(table.select()).all() == []


def test_engine_of_the_relay(engine):
    """The database that the relay has is asked beside that of the requests."""
    other = create_engine("sqlite:////nowhere/x.sqlite")
    app = App(engine, OUTBOX, lambda config: config.set_task_outbox(engine=other))
    *_, shop, relay = connect(app.celery)
    assert shop["ok"]
    assert relay["server"] == "The database sqlite:////nowhere/x.sqlite"
    assert relay["message"].startswith("fails: unable to open database file. Is the")


def test_password_in_an_error(engine):
    """What the driver of a database says is shown without the password."""
    pytest.importorskip("psycopg")
    refuse = Mock(side_effect=OSError("s3cr3t is wrong"))
    other = create_engine("postgresql+psycopg://u:s3cr3t@h/x", creator=refuse)
    app = App(engine, OUTBOX, lambda config: config.set_task_outbox(engine=other))
    *_, relay = connect(app.celery)
    assert relay["message"].startswith("fails: ** is wrong.")


def test_schemas(engine):
    """Each schema that is to have the tables is asked."""
    setting = {"pyramid_tasks.outbox_schema": "main other"}
    *_, main, other = connect(App(engine, OUTBOX | setting, None).celery)
    assert main["server"] == f"The schema main of the database {engine.url}"
    assert main["ok"]
    assert "has no schema other" in other["message"]


def test_no_session(engine):
    """An application that cannot say which database it has is told so."""
    app = App(engine, OUTBOX, lambda config: config.set_task_outbox(session="db"))
    answer = connect(app.celery)[-1]
    assert answer["server"] == "The database of the outbox"
    assert "there is no request.db" in answer["message"]
    assert not answer["ok"]


def test_results_that_are_not_kept(engine, monkeypatch):
    """A backend that keeps none by intent will do, one that loses some will not."""
    disabled = {"celery.result_backend": "disabled"}
    *_, answer = connect(App(engine, disabled, None).celery)
    assert (answer["message"], answer["ok"]) == ("keeps no results.", True)
    monkeypatch.setattr(CacheBackend, "set", lambda *args: None)
    *_, answer = connect(App(engine, RESULTS, None).celery)
    assert answer["message"].startswith("fails: A result that was stored is not found.")
    assert not answer["ok"]


def test_other_application():
    """An application of Celery's own is not said to be in order."""
    (answer,) = connect(Celery(broker="memory://", set_as_current=False))
    assert not answer["ok"]
