"""Colours ini files as PasteDeploy reads them, for Sphinx."""

# ruff: noqa: INP001 - imported by Sphinx

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, Operator, String, Whitespace

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class IniLexer(RegexLexer):
    """Pygments' own takes ``#main`` in ``egg:waitress#main`` for a comment.

    It does so behind every "#" and ";". A comment has a line of its own, and a line
    that is indented belongs to the value above.
    """

    name = "INI"
    tokens: ClassVar[dict[str, Any]] = {
        "root": [
            (r"^[#;].*", Comment.Single),
            (r"^\[.*\]", Keyword),
            (r"^[ \t]+\S.*", String),
            (
                r"^([^=:\n]*?)([ \t]*)([=:])([ \t]*)(.*)",
                bygroups(Name.Attribute, Whitespace, Operator, Whitespace, String),
            ),
            (r"[ \t]*\n", Whitespace),
            (r".+", Name.Attribute),
        ]
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Take the place of Pygments' lexer for ini files."""
    app.add_lexer("ini", IniLexer)
    return {"parallel_read_safe": True}
