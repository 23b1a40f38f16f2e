"""The snippets about transactions and the outbox, with a database."""

from __future__ import annotations

from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare
from quickstart import celery_commands, check_celery_command
from sqlalchemy import create_engine, inspect
from sqlalchemy.orm import Session

from pyramid_tasks.contrib import outbox_table
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.registry import get_tasks

pytest.importorskip("pyramid_tm")

PAGE = Document("docs/howto/transactions.md")
INCLUDES = PAGE.block("Defer tasks in transactions", "ini")
ORDERS = PAGE.block("Defer tasks in transactions", "python")
OUTBOX = PAGE.block("The outbox", "ini")
COMMANDS = "\n".join(PAGE.blocks("sh"))
ALEMBIC = PAGE.block("The tables", "python")


def settings_of(*inis: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text_ in inis:
        ini = ConfigParser(interpolation=None)
        ini.read_string(text_)
        found |= ini["app:main"]
    return found


@pytest.fixture
def configure(
    import_snippets: Callable[..., ModuleType], tmp_path: Path
) -> Callable[..., Configurator]:
    """Return a function that configures an application of the snippets."""

    def configure(*inis: str, **settings: Any) -> Configurator:
        snippets = import_snippets(ORDERS)
        engine = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
        snippets.Base.metadata.create_all(engine)
        outbox_table.metadata.create_all(engine)
        settings = settings_of(INCLUDES, *inis) | settings
        with Configurator(settings=settings, package=snippets) as config:
            config.registry["engine"] = engine
            config.add_request_method(snippets.dbsession, reify=True)
            config.scan(snippets)
        return config

    return configure


@pytest.mark.parametrize("inis", [[], [OUTBOX]], ids=["commit", "outbox"])
def test_orders(configure: Callable[..., Configurator], inis: list[str]) -> None:
    """The task runs when the transaction has committed, in one of its own."""
    config = configure(*inis, **{"celery.task_always_eager": True})
    order = config.package.Order
    with prepare(registry=config.registry) as env, env["request"].tm:
        assert config.package.create_order(env["request"])
        assert not env["request"].dbsession.get(order, 1).shipped
    app = get_tasks(config.registry).app
    assert app.tasks["snippets.import_orders"].apply([[7, 8]]).get() is None
    with Session(config.registry["engine"]) as session:
        found = {each.id: each.shipped for each in session.query(order)}
    assert found == {1: True, 7: False, 8: False}


def test_session_and_table(import_snippets: Callable[..., ModuleType]) -> None:
    """The session can have another name, and Alembic sees the table."""
    snippets = import_snippets(ALEMBIC)
    with Configurator(settings=settings_of(INCLUDES, OUTBOX)) as config:
        config.include(snippets.add_outbox)
    assert get_outbox(config.registry).session == "db"
    engine = create_engine("sqlite://")
    snippets.target_metadata().create_all(engine)
    assert "pyramid_tasks_outbox" in inspect(engine).get_table_names()


@pytest.mark.acceptance
@pytest.mark.parametrize("command", celery_commands(COMMANDS))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """The commands are there, and want an application with an outbox."""
    check_celery_command(command, tmp_path)
