"""Draws the pictures of :mod:`diagrams` as SVG, in the colour of the text around it."""

# ruff: noqa: INP001 - imported by Sphinx

from __future__ import annotations

from collections.abc import Iterator
from html import escape

WIDTH = 360
GAP = 14
LINE = 17
ARROW = 30
#: As wide as a letter may be, on average, for words to stay inside their box.
LETTER = 6.4
_STROKE = 'stroke="currentColor" stroke-opacity="0.6" fill="none"'
_WRONG = 'stroke="#e5484d" stroke-dasharray="5 4" fill="#e5484d" fill-opacity="0.08"'
_PLAIN = (
    'stroke="currentColor" stroke-opacity="0.6" fill="currentColor" fill-opacity="0.04"'
)
_STRONG = (
    'stroke="currentColor" stroke-width="2" fill="currentColor" fill-opacity="0.1"'
)


class DiagramError(ValueError):
    """What a diagram says does not fit."""


def draw(rows: list[str], title: str, text: str) -> str:
    """Return the picture as SVG."""
    top = 2.0
    parts: list[str] = []
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        is_arrows = all(cell[:1] in {"↓", "↑", ""} for cell in cells)
        height = _height(cells, is_arrows=is_arrows)
        width = (WIDTH - 2 - GAP * (len(cells) - 1)) / len(cells)
        for number, cell in enumerate(cells):
            left = 1 + number * (width + GAP)
            make = _arrow if is_arrows else _box
            parts += make(cell, left, top, width, height)
        top += height
    return _svg(top, title, text, parts)


def _svg(height: float, title: str, text: str, parts: list[str]) -> str:
    name = "diagram-" + "".join(filter(str.isalnum, title.lower()))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height + 2:g}" role="img" '
        f'aria-labelledby="{name} {name}-text" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(text)}</desc>{"".join(parts)}</svg>'
    )


def _height(cells: list[str], *, is_arrows: bool) -> float:
    lines = max(cell.count("/") + 1 for cell in cells)
    if is_arrows:
        return max(ARROW, LINE * lines + 8)
    return LINE * lines + 14


def _arrow(
    cell: str, left: float, top: float, width: float, height: float
) -> Iterator[str]:
    if not cell:
        return
    x = left + width / 2
    begin, end = top + 4, top + height - 4
    if cell[0] == "↑":
        begin, end = end, begin
    back = 6 if end > begin else -6
    line = f"M{x:g} {begin:g}V{end:g}"
    head = f"m-4 {-back}l4 {back}l4 {-back}"
    yield f'<path {_STROKE} d="{line}{head}"/>'
    yield from _text(cell[1:], x + 9, top, left + width - x + GAP, height, size=12)


def _box(
    cell: str, left: float, top: float, width: float, height: float
) -> Iterator[str]:
    style = {"✗": _WRONG, "*": _STRONG}.get(cell[:1], _PLAIN)
    yield (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="5" '
        f"{style}/>"
    )
    centre = left + width / 2
    yield from _text(
        cell.removeprefix("*"), centre, top, width - 8, height, anchor="middle"
    )


def _text(
    text: str,
    x: float,
    top: float,
    width: float,
    height: float,
    size: int = 13,
    anchor: str = "start",
) -> Iterator[str]:
    lines = [line.strip() for line in text.split("/")]
    y = top + (height - LINE * len(lines)) / 2 + 13
    for line in filter(None, lines):
        if len(line) * LETTER * size / 13 > width:
            raise DiagramError(f"Too long for its place: {line!r}")
        yield (
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="currentColor">{escape(line)}</text>'
        )
        y += LINE


def draw_ratios(rows: list[str], title: str) -> str:
    """Return bars as SVG.

    Args:
        rows: For each bar its label, its length, and its lower and upper quartile.
        title: The caption. The rows themselves are the text for who sees no picture.
    """
    bars = []
    for row in rows:
        label, *figures = row.rsplit("|", 3)
        bars.append((label.strip(), *map(float, figures)))
    scale = (WIDTH - 52) / max(1, *(high for *_, high in bars))
    parts: list[str] = []
    top = 2.0
    for label, ratio, low, high in bars:
        parts += _text(label, 1, top, WIDTH, LINE, size=12)
        top += LINE
        middle = top + 6
        parts.append(
            f'<rect x="1" y="{top:g}" width="{ratio * scale:.1f}" height="12" '
            f"{_PLAIN}/>"
            f'<path stroke="currentColor" fill="none" '
            f'd="M{low * scale:.1f} {middle:g}H{high * scale:.1f}'
            f"M{low * scale:.1f} {top + 2:g}v8M{high * scale:.1f} {top + 2:g}v8"
            f'"/>'
        )
        end = max(ratio, high) * scale + 6
        if end - 4 < scale + 1 < end + 4 * LETTER:
            end = scale + 7  # right of the line, which would cross the figure
        parts += _text(f"{ratio:.2f}", end, top - 2, WIDTH, LINE, size=12)
        top += 20
    parts.append(
        f'<path {_STROKE} stroke-dasharray="3 3" d="M{scale + 1:.1f} 0V{top:g}"/>'
    )
    shown = ", ".join(f"{label}: {ratio:.2f}" for label, ratio, *_ in bars)
    return _svg(top, title, f"{shown}. Plain Celery is 1.", parts)
