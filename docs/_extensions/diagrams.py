"""Pictures drawn from lines of text: the directive ``diagram``.

The argument is the caption, and the option ``text`` says in words what the picture
shows. Each line of the content is a row, from top to bottom, and ``|`` is between its
columns. A row of arrows begins with ``↓`` or ``↑``, which a label may follow. Every
other row has boxes, with ``/`` between the lines of a box. A box that begins with ``✗``
says what goes wrong there, and a box that begins with ``*`` stands out.

The picture is SVG inside the page, in the colour of its text. So it is readable in the
dark and in the light, on a phone, and without JavaScript.
"""

# ruff: noqa: INP001 - imported by Sphinx

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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
    name = "diagram-" + "".join(filter(str.isalnum, title.lower()))
    return (
        f'<svg viewBox="0 0 {WIDTH} {top + 2:g}" role="img" '
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


class Diagram(SphinxDirective):
    """Draws its content."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"text": directives.unchanged_required}  # noqa: RUF012 as docutils has it

    def run(self) -> list[nodes.Node]:
        """Return the picture with its caption."""
        (title,) = self.arguments
        if "text" not in self.options:
            raise self.error("A diagram needs a text that says what it shows.")
        try:
            svg = draw(list(self.content), title, self.options["text"])
        except DiagramError as error:
            raise self.error(str(error)) from error
        html = (
            f'<figure class="diagram">{svg}'
            f"<figcaption>{escape(title)}</figcaption></figure>"
        )
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True}
