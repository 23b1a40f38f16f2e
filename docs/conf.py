"""How Sphinx builds the documentation: ``make docs``. Nothing is downloaded."""

# ruff: noqa: INP001 - read by Sphinx, not imported

from __future__ import annotations

import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pyramid_tasks"
_metadata = metadata("pyramid-tasks")
version = release = _metadata["Version"]
_urls = dict(url.split(", ") for url in _metadata.get_all("Project-URL"))

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

extensions = [
    "diagrams",
    "ini",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
smartquotes_action = "qe"  # quotes and ellipses: the dashes of --ini are to stay

# Definition lists, headings as targets of links, ":::" around what has code in it, and
# "{.class}" above a block.
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings are in the style of Google; types are those of the annotations.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_baseurl = _urls["Documentation"]
html_theme_options = {
    "source_repository": _urls["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"pyramid_tasks {version}"
html_copy_source = False
html_show_copyright = False  # LICENSE has it

nitpick_ignore_regex = [
    # What other projects document: their inventories would have to be downloaded. The
    # links to them stand in the text.
    ("py:.*", r"(celery|collections|kombu|paste|pyramid|sqlalchemy)\..*"),
    # The same, in annotations: names imported for type checkers alone have no module.
    (
        "py:class",
        r"AsyncResult|BaseSchedule|ConfigLoader|Engine|GroupResult|Registry|Request",
    ),
    ("py:class", r"Session|Signature|Task|timedelta"),
    # The module that has the private names of PasteDeploy.
    ("py:class", r"pyramid_tasks\.loaders\._pastedeploy\..*"),
    # Too plain to be described.
    ("py:class", r"CallOptions|Capture|Restore|TaskDeriverInfo|TaskFunc|TaskLike"),
]

#: What a user writes before the name of a function, which takes that as its first
#: argument.
_CALLED_ON = {
    "pyramid_tasks.configuration.celery_app": "config",
    "pyramid_tasks.configuration.contexts": "config",
    "pyramid_tasks.configuration.derivers": "config",
    "pyramid_tasks.configuration.fork_safe": "config",
    "pyramid_tasks.configuration.schedules": "config",
    "pyramid_tasks.configuration.tasks": "config",
    "pyramid_tasks.outbox.configuration": "config",
    "pyramid_tasks.deferring.canvases": "request",
    "pyramid_tasks.deferring.request_methods": "request",
    "pyramid_tasks.worker.request": "request",
}

#: The module whose functions users read as properties, so without parentheses.
_PROPERTIES = "pyramid_tasks.worker.request"

#: How many letters of code have room in a line of a list on a phone.
_FITS_A_PHONE = 32


def _leave_out_first(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, *texts: str | None
) -> tuple[str | None, str | None] | None:
    """Show ``config.register_task(func)`` where the function has ``config`` too."""
    signature, returns = texts
    owner = _CALLED_ON.get(name.rpartition(".")[0])
    if what != "function" or owner is None or signature is None:
        return None
    first, _, rest = signature[1:-1].partition(", ")
    return (f"({rest})" if first.startswith(owner) else signature), returns


def _say_on_what(_app: Sphinx, doctree: Any) -> None:
    for node in doctree.findall(addnodes.desc_signature):
        if owner := _CALLED_ON.get(node.get("module", "")):
            for prefix in list(node.findall(addnodes.desc_addname)):
                prefix.parent.remove(prefix)
            node.insert(0, addnodes.desc_addname("", f"{owner}."))
        if node.get("module") == _PROPERTIES:
            for arguments in list(node.findall(addnodes.desc_parameterlist)):
                arguments.parent.remove(arguments)
            node["_toc_name"] = node["_toc_name"].removesuffix("()")


def _write_dashes(_app: Sphinx, doctree: Any) -> None:
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":  # Sphinx' own, between a parameter and what it is
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def _mark_short_code(_app: Sphinx, doctree: Any) -> None:
    for code in doctree.findall(nodes.literal):
        if all(len(word) < _FITS_A_PHONE for word in code.astext().split()):
            code["classes"].append("short")


def setup(app: Sphinx) -> None:
    """Have the functions behind directives and request methods shown as such."""
    for module in (
        "pyramid_tasks.configuration.tasks",
        "pyramid_tasks.deferring.request_methods",
    ):
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        analyzer.overloads.clear()  # they are for type checkers
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as in the docstrings
    app.connect("autodoc-process-signature", _leave_out_first)
    # Before Sphinx collects the names for the table of contents.
    app.connect("doctree-read", _say_on_what, priority=400)
    app.connect("doctree-read", _write_dashes)
    app.connect("doctree-read", _mark_short_code)
