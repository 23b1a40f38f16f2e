"""Pictures drawn from lines of text: the directives ``diagram`` and ``ratios``.

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

from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import directives
from drawing import DiagramError, draw, draw_ratios
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx


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
        return [_figure(svg, title)]


class Ratios(SphinxDirective):
    """Draws its lines as bars: a label, a ratio, and the quartiles of that."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the bars with their caption."""
        (title,) = self.arguments
        return [_figure(draw_ratios(list(self.content), title), title)]


def _figure(svg: str, title: str) -> nodes.raw:
    caption = f"<figcaption>{escape(title)}</figcaption>"
    html = f'<figure class="diagram">{svg}{caption}</figure>'
    return nodes.raw("", html, format="html")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("diagram", Diagram)
    app.add_directive("ratios", Ratios)
    return {"parallel_read_safe": True}
