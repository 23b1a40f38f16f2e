"""The source files of the package, as syntax trees, for tests of its structure."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pyramid_tasks

PACKAGE = Path(pyramid_tasks.__file__).parent

#: The syntax tree of each module, by its name below the package: ``worker.request``.
#: The package itself, and the packages in it, are ``__init__``, ``worker.__init__``.
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(
        path.read_text("utf-8")
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever it does so."""
    package = ".".join(["pyramid_tasks", *name.split(".")[:-1]])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _inside(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield from list(_inside(f"{module}.{alias.name}")) or _inside(module)


def _inside(dotted: str) -> Iterator[str]:
    root, _, rest = dotted.partition(".")
    if root == "pyramid_tasks":
        for name in (rest, f"{rest}.__init__".lstrip(".")):
            if name in MODULES:
                yield name
