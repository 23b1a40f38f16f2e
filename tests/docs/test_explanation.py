"""The snippets of the pages that explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.signals import before_task_publish
from documents import ConfigureSnippets, Document, app_settings
from pyramid.request import Request
from pyramid.scripting import prepare
from sqlalchemy import create_engine, event

from pyramid_tasks.testing import capture

if TYPE_CHECKING:
    from pyramid.config import Configurator

pytest.importorskip("pyramid_tm")

PAGE = Document("docs/explanation/why.md")
TOO_EARLY, IN_TIME = PAGE.blocks("python", "The task that starts too early")
LINK = "The link that leads to localhost"
BY_HAND, SEND_INVOICE = PAGE.blocks("python", LINK)
LOCALHOST, SHOP = PAGE.blocks("text", LINK)
CONTEXT = PAGE.block(LINK, "ini")

MODELS = """
import zope.sqlalchemy
from pyramid.scripting import prepare
from pyramid_tasks import task
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


def dbsession(request):
    session = Session(request.registry["engine"])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session
"""


@pytest.fixture
def shop(configure_snippets: ConfigureSnippets, tmp_path: Path) -> Configurator:
    """Return the configuration of the shop that the page is about."""
    settings = app_settings(CONTEXT) | {
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "pyramid.includes": "pyramid_tm pyramid_tasks.contrib.pyramid_tm",
    }
    config = configure_snippets(
        *(MODELS, TOO_EARLY, IN_TIME, BY_HAND, SEND_INVOICE), settings=settings
    )
    engine = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
    config.package.Base.metadata.create_all(engine)
    config.registry["engine"] = engine
    config.add_request_method(config.package.dbsession, reify=True)
    config.add_route("order", "/orders/{id}")
    config.commit()
    return config


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("create_order_too_early", ["sent", "committed"]),
        ("create_order", ["committed", "sent"]),
    ],
)
def test_too_early(
    shop: Configurator, view: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain Celery sends the task before the commit, and the package after it."""
    happened: list[str] = []

    def note_sent(**_: Any) -> None:
        happened.append("sent")

    def note_committed(_: Any) -> None:
        happened.append("committed")

    before_task_publish.connect(note_sent)
    event.listen(shop.registry["engine"], "commit", note_committed)
    snippets = shop.package
    if view == "create_order_too_early":
        plain = Celery(broker="memory://", set_as_current=False)
        task = plain.task(name="plain", shared=False)(snippets.make_link)
        monkeypatch.setattr(snippets, "send_invoice", task)
    with prepare(registry=shop.registry) as env, env["request"].tm:
        assert getattr(snippets, view)(env["request"]) == {"id": 1}
    before_task_publish.disconnect(note_sent)
    assert happened == expected


def test_link(shop: Configurator) -> None:
    """By hand a link leads to localhost, and with a context to the site."""
    snippets = shop.package
    vars(snippets)["registry"] = shop.registry
    assert snippets.make_link(7) == LOCALHOST.strip()
    request = Request.blank("/", base_url="https://shop.example")
    with prepare(request, shop.registry), capture(shop.registry) as deferred:
        request.defer_task(snippets.send_invoice, 7)
        assert deferred.run() == [SHOP.strip()]
