"""The snippets about transactions, the outbox and the inbox, with a database."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import zope.sqlalchemy
from databases import database
from documents import ConfigureSnippets, Document, ImportSnippets, app_settings
from pyramid.config import Configurator
from pyramid.scripting import prepare
from servers import pgbouncer
from sqlalchemy import create_engine, inspect, literal, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pyramid_tasks.contrib import outbox_table
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import capture

pytest.importorskip("pyramid_tm")

PAGE = Document("docs/howto/transactions.md")
INCLUDES = PAGE.block("Defer tasks in transactions", "ini")
ORDERS = PAGE.block("Defer tasks in transactions", "python")
OUTBOX = PAGE.block("The outbox", "ini")
ONE_SCHEMA, SCHEMAS = PAGE.blocks("ini", "Schemas and tenants")
ALEMBIC = PAGE.block("The tables", "python")
PGBOUNCER = PAGE.block("PgBouncer", "python")


@pytest.mark.parametrize("inis", [[], [OUTBOX]], ids=["commit", "outbox"])
def test_orders(
    configure_snippets: ConfigureSnippets, tmp_path: Path, inis: list[str]
) -> None:
    """The task runs when the transaction has committed, in one of its own."""
    settings = app_settings(INCLUDES, *inis) | {"celery.task_always_eager": True}
    config = configure_snippets(ORDERS, settings=settings)
    config.add_request_method(config.package.dbsession, reify=True)
    config.commit()
    config.registry["engine"] = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
    for metadata in config.package.Base.metadata, outbox_table.metadata:
        metadata.create_all(config.registry["engine"])
    order = config.package.Order
    with prepare(registry=config.registry) as env, env["request"].tm:
        assert config.package.create_order(env["request"])
        assert not env["request"].dbsession.get(order, 1).shipped
    app = get_tasks(config.registry).app
    assert app.tasks["snippets.import_orders"].apply([[7, 8]]).get() is None
    with Session(config.registry["engine"]) as session:
        found = {each.id: each.shipped for each in session.query(order)}
    assert found == {1: True, 7: False, 8: False}


def test_session_and_table(import_snippets: ImportSnippets) -> None:
    """The session can have another name, and Alembic sees the table."""
    snippets = import_snippets(ALEMBIC)
    with Configurator(settings=app_settings(INCLUDES, OUTBOX)) as config:
        config.include(snippets.add_outbox)
    assert get_outbox(config.registry).session == "db"
    engine = create_engine("sqlite://")
    snippets.target_metadata().create_all(engine)
    assert "pyramid_tasks_outbox" in inspect(engine).get_table_names()


@pytest.mark.parametrize(
    ("ini", "names"),
    [(ONE_SCHEMA, ("app",)), (SCHEMAS, ("tenant_one", "tenant_two"))],
)
def test_schemas(ini: str, names: tuple[str, ...]) -> None:
    """The setting names one schema, or several."""
    with Configurator(settings=app_settings(INCLUDES, OUTBOX, ini)) as config:
        pass
    assert get_outbox(config.registry).schemas.names == names


@pytest.mark.server
def test_pgbouncer(import_snippets: ImportSnippets, tmp_path: Path) -> None:
    """The engine of the page takes any connection, and the relay has another engine."""
    snippets = import_snippets(PGBOUNCER)
    with (
        database("postgresql", tmp_path) as url,
        pgbouncer(tmp_path, "transaction") as p,
    ):
        through = make_url(url).set(port=p).render_as_string(hide_password=False)
        engine = snippets.make_engine({"sqlalchemy.url": through})
        with engine.connect() as one, engine.connect() as other:
            for connection in [one, other] * 8:
                with connection.begin():
                    assert connection.scalar(select(literal("x"))) == "x"
        engine.dispose()
    settings = app_settings(INCLUDES, OUTBOX) | {"relay.url": "sqlite://"}
    with Configurator(settings=settings) as config:
        config.include(snippets.add_relay)
    assert str(get_outbox(config.registry).get_engine().url) == "sqlite://"


# Effects that happen once

ONCE = Document("docs/howto/effects-once.md")
INBOX = ONCE.block("Give a task an inbox", "ini")
SHIP = ONCE.block("Give a task an inbox", "python")
CHARGE = ONCE.block("What the inbox cannot do", "python")
TEST = ONCE.block("Test it", "python")


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    shipped: Mapped[int] = mapped_column(default=0)


def test_inbox(configure_snippets: ConfigureSnippets, tmp_path: Path) -> None:
    """An order is shipped once, though its task runs twice, and so is its invoice."""

    def send_invoice(request: object, order_id: int) -> None: ...

    engine = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
    for metadata in Base.metadata, outbox_table.metadata:
        metadata.create_all(engine)

    def dbsession(request: object) -> Session:
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    names = {"Order": Order, "send_invoice": send_invoice}
    settings = app_settings(INBOX)
    config = configure_snippets(SHIP, CHARGE, TEST, settings=settings, **names)
    snippets = config.package
    config.add_request_method(dbsession, reify=True)
    payments = Mock()
    config.add_request_method(lambda _: payments, "payments", property=True)
    config.register_task(send_invoice)
    config.commit()

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
    (charged,) = payments.charge.call_args_list
    assert charged.kwargs["idempotency_key"] == "one"
