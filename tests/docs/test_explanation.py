"""The snippets of the pages that explain, and the diagrams of all pages."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from celery import Celery
from celery.signals import before_task_publish
from documents import ROOT, Document
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from quickstart import check_celery_command
from sqlalchemy import create_engine, event
from support import run

from pyramid_tasks.testing import capture

pytest.importorskip("pyramid_tm")

PAGE = Document("docs/explanation/why.md")
TOO_EARLY, IN_TIME = PAGE.blocks("python", "The task that starts too early")
LINK = "The link that leads to localhost"
BY_HAND, SEND_INVOICE = PAGE.blocks("python", LINK)
LOCALHOST, SHOP = PAGE.blocks("text", LINK)
CONTEXT = PAGE.block(LINK, "ini")
COMMAND = PAGE.block("The worker on the wrong broker", "sh")
MISTAKE = PAGE.block("The worker on the wrong broker", "text")

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
def shop(import_snippets: Callable[..., ModuleType], tmp_path: Path) -> Configurator:
    """Return the configuration of the shop that the page is about."""
    snippets = import_snippets(MODELS, TOO_EARLY, IN_TIME, BY_HAND, SEND_INVOICE)
    engine = create_engine(f"sqlite:///{tmp_path}/orders.sqlite")
    snippets.Base.metadata.create_all(engine)
    settings = {
        "celery.broker_url": "memory://",
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "pyramid_tasks.context": re.search(r"context = (.*)", CONTEXT)[1],
    }
    with Configurator(settings=settings, package=snippets) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.registry["engine"] = engine
        config.add_request_method(snippets.dbsession, reify=True)
        config.add_route("order", "/orders/{id}")
        config.scan(snippets)
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


@pytest.mark.acceptance
def test_mistake(tmp_path: Path) -> None:
    """The command works, and names the mistake of the page."""
    check_celery_command(COMMAND.strip(), tmp_path)
    ini = tmp_path / "config.ini"
    ini.write_text(ini.read_text().replace("celery.broker_url", "celery.broker_ulr"))
    done = run(*COMMAND.split(), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    for line in MISTAKE.splitlines():
        for part in line.split("…"):
            assert part.strip() in done.stderr, done.stderr


DIAGRAMS = [
    (path.stem, *match.groups())
    for path in sorted((ROOT / "docs").rglob("*.md"))
    for match in re.finditer(
        r"^:::\{diagram\} ([^\n]+)\n:text: ([^\n]+)\n\n(.+?)\n:::$",
        path.read_text(),
        re.MULTILINE | re.DOTALL,
    )
]
DRAW = runpy.run_path(str(ROOT / "docs" / "_extensions" / "drawing.py"))


@pytest.mark.parametrize(("page", "title", "text", "rows"), DIAGRAMS)
def test_diagram(page: str, title: str, text: str, rows: str) -> None:
    """Each picture has a text for those who do not see it, and takes the page's colour.

    Words that do not fit their box are an error of ``draw`` itself.
    """
    svg = DRAW["draw"](rows.splitlines(), title, text)
    picture = ET.fromstring(svg)
    names = [picture[number].attrib["id"] for number in (0, 1)]
    assert picture.attrib["aria-labelledby"].split() == names
    assert [picture[number].text for number in (0, 1)] == [title, text]
    for line in picture.iter("{http://www.w3.org/2000/svg}text"):
        assert line.attrib["fill"] == "currentColor"
        assert float(line.attrib["font-size"]) >= 12


def test_words_that_do_not_fit() -> None:
    """A line that is wider than its box is refused, with the line."""
    with pytest.raises(ValueError, match="a line that is far too long"):
        DRAW["draw"](["short | a line that is far too long for its box"], "x", "y")
