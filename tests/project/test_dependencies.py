"""What the package imports is what it declares."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import distributions
from itertools import chain

from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Who imports the module of the plugin has it.
LOADED_BY = {"pytest": "pytest_plugin.py"}
#: What is Python's own in some of the supported versions.
STDLIB = {*sys.stdlib_module_names, "annotationlib"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Give the modules that are imported, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        else:
            yield from imports(node)


def owners() -> dict[str, str]:
    """Return the names of the distributions that installed modules belong to."""
    found: dict[str, str] = {}
    for each in distributions():
        name = canonicalize_name(each.metadata["Name"])
        for file in each.files or ():
            path = str(file).removesuffix(".py").removesuffix("/__init__")
            found[path.replace("/", ".")] = name
    return found


def test_imports_are_declared() -> None:
    """A distribution that the package imports is a dependency of it or of an extra."""
    optional = PROJECT["optional-dependencies"].values()
    texts = chain(PROJECT["dependencies"], *optional)
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    owner = owners()
    imported = {
        (path.name, owner[module])
        for path in (ROOT / "pyramid_tasks").rglob("*.py")
        for module in imports(ast.parse(path.read_text()))
        if module.partition(".")[0] not in {*STDLIB, "pyramid_tasks"}
    }
    names = {name for _, name in imported}
    assert {"celery", "kombu", "pastedeploy", "pyramid", "zope-interface"} <= names
    undeclared = names - declared
    assert undeclared == set(LOADED_BY)
    assert {(LOADED_BY[name], name) for name in undeclared} <= imported
    assert declared - names == {PROJECT["name"]}  # [outbox] needs [tm]


def test_lowest_versions_are_tried() -> None:
    """tox runs the lowest version that each bound of a requirement allows."""
    lines = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    bounds = {
        canonicalize_name(each.name): Version(bound.version)
        for each in map(Requirement, lines)
        for bound in each.specifier
        if bound.operator == ">="
    }
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    pins = map(Requirement, _requirements(tox["testenv:py311-lowest"]["deps"]))
    tried = {
        canonicalize_name(each.name): Version(bound.version)
        for each in pins
        for bound in each.specifier
        if bound.operator == "=="
    }
    assert bounds.items() <= tried.items()


def _requirements(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
