"""What is drawn on the pages, and the built site in a browser."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from documents import ROOT

if TYPE_CHECKING:
    from browser import Browser

SITE = ROOT / "docs" / "_build" / "html"

# What the window, or a table in it, must be scrolled sideways for.
WIDER = """() => [document.documentElement, ...document.querySelectorAll(
    "article .table-wrapper, article figure"
)].filter(each => each.scrollWidth > each.clientWidth).map(each => each.className)"""


@pytest.mark.acceptance
def test_pages_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    """No page and no table is scrolled sideways in a window of 390 pixels."""
    pages = sorted(SITE.rglob("*.html"))
    if not pages:
        pytest.skip("The site is not built; build it: make docs")
    # All at once, as it takes seconds to open one after the other.
    frames = (f'<iframe width=390 src="{page.as_uri()}"></iframe>' for page in pages)
    (tmp_path / "all.html").write_text("".join(frames))
    _, *shown = browser.open((tmp_path / "all.html").as_uri()).frames
    assert len(shown) == len(pages)
    wider = {each.url: each.evaluate(WIDER) for each in shown}
    assert {url: found for url, found in wider.items() if found} == {}


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


def test_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a table with ratios are lines, of which the page draws bars."""
    monkeypatch.syspath_prepend(ROOT)
    report, measuring = (
        import_module(f"benchmarks.{name}") for name in ("report", "measuring")
    )
    monkeypatch.setattr(report, "versions", lambda: "")
    plain = [10.0, 20.0, 10.0]
    rows = [
        measuring.Row("plain Celery", "s", plain),
        measuring.Row("pyramid_tasks", "s", [11.0, 24.0, 14.0], plain),
    ]
    page = tmp_path / "page.md"
    page.write_text("<!-- figures --><!-- end of figures -->")
    report.write(page, [report.Section("One task", "command", "note", rows)], "once")
    chart = re.search(r":::\{ratios\} (.+)\n(.+)\n:::", page.read_text())
    assert chart[2] == "pyramid_tasks | 1.200 | 1.150 | 1.300"
    svg = DRAW["draw_ratios"]([chart[2]], chart[1])
    picture = ET.fromstring(svg)
    assert picture[1].text == "pyramid_tasks: 1.20. Plain Celery is 1."
    bar = picture.find("{http://www.w3.org/2000/svg}rect")
    width, one = float(bar.attrib["width"]), re.findall(r'd="M([\d.]+) 0V', svg)[-1]
    assert width / (float(one) - 1) == pytest.approx(1.2, abs=0.01)
