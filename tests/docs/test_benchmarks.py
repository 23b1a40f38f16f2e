"""The commands of the page about what it costs. ``make bench`` runs them all."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from documents import ROOT, Document
from support import run

COMMANDS = Document("docs/benchmarks.md").blocks("sh")


@pytest.mark.acceptance
def test_commands() -> None:
    """There is a benchmark of each name, and a table of each benchmark."""
    shown = run("python", "-m", "benchmarks", "--help", cwd=ROOT).stdout
    names = re.search(r"in place of all: (.+?)\n\n", shown, re.DOTALL)
    assert names
    assert "".join(COMMANDS).splitlines() == [
        f".venv/bin/python -m benchmarks {name}" for name in re.split(r",\s+", names[1])
    ]


def test_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a table with ratios are lines, of which the page draws bars."""
    monkeypatch.syspath_prepend(ROOT)
    report, measuring = (
        import_module(f"benchmarks.{name}") for name in ("report", "measuring")
    )
    draw = runpy.run_path(str(ROOT / "docs" / "_extensions" / "drawing.py"))
    monkeypatch.setattr(report, "versions", lambda: "")
    plain = [10.0, 20.0, 10.0]
    rows = [
        measuring.Row("plain Celery", "s", plain),
        measuring.Row("pyramid_tasks", "s", [11.0, 24.0, 14.0], plain),
    ]
    page = tmp_path / "page.md"
    page.write_text("<!-- figures --><!-- end of figures -->")
    report.write(page, [report.Section("One task", "command", "note", rows)], 1)
    chart = re.search(r":::\{ratios\} (.+)\n(.+)\n:::", page.read_text())
    assert chart[2] == "pyramid_tasks | 1.200 | 1.150 | 1.300"
    svg = draw["draw_ratios"]([chart[2]], chart[1])
    picture = ET.fromstring(svg)
    assert picture[1].text == "pyramid_tasks: 1.20. Plain Celery is 1."
    bar = picture.find("{http://www.w3.org/2000/svg}rect")
    width, one = float(bar.attrib["width"]), re.findall(r'd="M([\d.]+) 0V', svg)[-1]
    assert width / (float(one) - 1) == pytest.approx(1.2, abs=0.01)
