"""The snippets about the inbox, with a database."""

from __future__ import annotations

from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare
from quickstart import celery_commands, check_celery_command

pytest.importorskip("pyramid_tm")
import zope.sqlalchemy
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pyramid_tasks.contrib import outbox_table
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import capture

PAGE = Document("docs/howto/effects-once.md")
INI = PAGE.block("Give a task an inbox", "ini")
SHIP = PAGE.block("Give a task an inbox", "python")
CHARGE = PAGE.block("What the inbox cannot do", "python")
TEST = PAGE.block("Test it", "python")
COMMANDS = PAGE.blocks("sh")


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    shipped: Mapped[int] = mapped_column(default=0)


def test_snippets(import_snippets: Callable[..., ModuleType], tmp_path: Path) -> None:
    """An order is shipped once, though its task runs twice, and so is its invoice."""
    charged: list[str] = []

    def charge(order: int, idempotency_key: str) -> None:
        charged.append(idempotency_key)

    def send_invoice(request: object, order_id: int) -> None: ...

    names = {"Order": Order, "send_invoice": send_invoice}
    snippets = import_snippets(SHIP, CHARGE, TEST, **names)
    engine = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
    Base.metadata.create_all(engine)
    outbox_table.metadata.create_all(engine)

    def dbsession(request: object) -> Session:
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    ini = ConfigParser(interpolation=None)
    ini.read_string(INI)
    with Configurator(settings=dict(ini["app:main"]), package=snippets) as config:
        config.add_request_method(dbsession, reify=True)
        payments = SimpleNamespace(charge=charge)
        config.add_request_method(lambda _: payments, "payments", property=True)
        config.register_task(send_invoice)
        config.scan(snippets)

    def post(_path: str) -> None:
        with prepare(registry=config.registry) as env, env["request"].tm:
            env["request"].dbsession.add(Order(id=1))
            env["request"].defer_task(snippets.ship, 1)

    with capture(config.registry) as deferred, Session(engine) as session:
        testapp = SimpleNamespace(post=post)
        snippets.test_order(testapp, deferred, session)
        deferred.assert_deferred(send_invoice, 1)
        assert len(deferred.find(send_invoice)) == 1

    task = get_tasks(config.registry).app.tasks["snippets.charge"]
    task.apply([1], task_id="one")
    assert charged == ["one"]


@pytest.mark.acceptance
@pytest.mark.parametrize("command", celery_commands(*COMMANDS))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """The commands are there, and want an application with an outbox."""
    check_celery_command(command, tmp_path)
