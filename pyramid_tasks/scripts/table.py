"""Tables in the form of Pyramid's own scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .listing import describe

PAD = 3
UNKNOWN_KEY = "<unknown>"


def print_table(
    rows: list[dict[str, Any]], columns: Sequence[str], out: Callable[[str], object]
) -> None:
    """Print some columns of rows, under titles made of the names of the columns."""
    titles = [name.replace("_", " ").capitalize() for name in columns]
    table = [titles, ["-" * len(title) for title in titles]]
    table += [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, cells)) + PAD for cells in zip(*table, strict=True)]
    for cells in table:
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        out(" ".join(padded).rstrip())


def _cell(value: Any) -> str:
    match value:
        case None:
            return UNKNOWN_KEY
        case {"file": str(file), "line": line}:
            path = Path(file)
            if path.is_relative_to(Path.cwd()):
                path = path.relative_to(Path.cwd())
            return f"{path}:{line}"
        case dict():
            return ", ".join(f"{key}={_short(item)}" for key, item in value.items())
        case list():
            return ", ".join(value)
    return str(value)


def _short(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        items = ", ".join(map(_short, value))
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    return describe(value) if hasattr(value, "__qualname__") else repr(value)
