"""The table: on the screen, and in the documentation."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .brokers import server_versions

if TYPE_CHECKING:
    from .measuring import Row

_WIDTH = 52
_COLUMNS = ("median", "quartiles", "ratio", "difference")
_PACKAGES = ("pyramid-tasks", "celery", "kombu", "billiard", "pyramid", "SQLAlchemy")
#: More are no picture.
_MOST_BARS = 24
_MARKS = "<!-- figures -->", "<!-- end of figures -->"


@dataclass
class Section:
    """One benchmark: what it measures, the command that does it, and its rows.

    The ratios are those to the reference.
    """

    title: str
    command: str
    note: str
    rows: list[Row]
    reference: str = "plain Celery"


def cells(row: Row) -> list[str]:
    """Return the figures of a row."""
    low, high = row.quartiles
    ratio, difference = row.ratio, row.difference
    return [
        f"{_number(row.median)} {row.unit}",
        f"{_number(low)} - {_number(high)}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if difference is None else f"{'+' * (difference >= 0)}{_number(difference)}",
    ]


def print_head() -> None:
    """Print the head of the table."""
    print(f"{'':{_WIDTH}}" + "".join(f"{name:>20}" for name in _COLUMNS))


def print_section(section: Section) -> None:
    """Print a part of the table."""
    print(f"\n{section.title}   $ {section.command}")
    for row in section.rows:
        figures = "".join(f"{cell:>20}" for cell in cells(row))
        print(f"  {row.label:{_WIDTH - 2}}{figures}", flush=True)


def write(path: Path, sections: Iterable[Section], how: str) -> None:
    """Put the tables into a Markdown file, in place of those that it has.

    Args:
        how: How they were measured.
    """
    begin, end = _MARKS
    figures = "\n".join([begin, "", *_markdown(sections, how), end])
    text = path.read_text(encoding="utf-8")
    replaced, count = re.subn(
        f"{begin}.*{end}", lambda _: figures, text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{path} must have {begin} and {end}, once, for the tables")
    path.write_text(replaced, encoding="utf-8")


def machine() -> str:
    """Describe the machine."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), "
        f"{memory:.0f} GiB, {platform.system()} {platform.release()}"
    )


def versions() -> str:
    """Name the versions of all that has a part in it."""
    packages = [f"{name} {version(name)}" for name in _PACKAGES]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return ", ".join([python, *packages, *server_versions()])


def _markdown(sections: Iterable[Section], how: str) -> Iterator[str]:
    date = dt.datetime.now(dt.UTC).date()
    yield f"Measured on {date}, commit {_commit()}, {how}."
    yield f"Machine: {machine()}."
    yield f"Versions: {versions()}."
    for section in sections:
        yield f"\n## {section.title}\n"
        yield f"{section.note}\n"
        yield f"```sh\n{section.command}\n```\n"
        yield f"| | {' | '.join(_COLUMNS)} |"
        yield "|---|" + "---:|" * len(_COLUMNS)
        for row in section.rows:
            yield f"| {row.label} | {' | '.join(cells(row))} |"
        yield from _chart(section)
    yield ""


def _chart(section: Section) -> Iterator[str]:
    """Give the lines of a picture of the ratios, which docs/_extensions draws."""
    rows = [row for row in section.rows if row.ratio is not None]
    if not 0 < len(rows) <= _MOST_BARS:
        return
    title = f"{section.title}: ratios to {section.reference}, with quartiles"
    yield f"\n:::{{ratios}} {title}"
    for row in rows:
        figures = (row.ratio, *row.ratio_quartiles)
        yield f"{row.label} | " + " | ".join(f"{figure:.3f}" for figure in figures)
    yield ":::"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _number(value: float) -> str:
    """Return three significant digits, and no power of ten."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2  # noqa: PLR2004 as said
    return f"{value:,.{decimals}f}"
