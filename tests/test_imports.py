"""How the package is laid out: what is where, and which way imports go."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from itertools import pairwise

import pytest
from sources import MODULES, PACKAGE, imported

# The rooms and modules of the top level, the lowest first.
LAYERS = [
    {"exceptions", "interfaces", "logging", "typing"}
    | {"_celery", "_kombu", "_pyramid"},
    {"events"},
    {"coercion"},
    {"settings"},
    {"application"},
    {"registry"},
    {"worker"},
    {"configuration"},
    {"delivery"},
    {"outbox"},
    {"deferring"},
    {"__init__"},
    {"contrib"},
    {"transaction"},
    {"loaders"},
    {"celery", "scripts", "testing"},
    {"pytest_plugin"},
]
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

IMPORTS = {name: set(imported(name, tree)) for name, tree in MODULES.items()}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def names(room: str) -> set[str]:
    """Return the rooms that a room imports, or has in a dotted name."""
    found = set()
    for module, tree in MODULES.items():
        if room_of(module) == room:
            found |= {room_of(imported) for imported in IMPORTS[module]}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"^\.(\w+)\.", node.value))
    return found - {room}


def test_top_level():
    """The top level has what the plan of the rooms lists, and nothing else."""
    found = {
        path.stem if path.suffix == ".py" else path.name
        for path in PACKAGE.iterdir()
        if path.name != "__pycache__"
    }
    assert found == {*LAYER, "py.typed"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module):
    """A module imports its own room and lower ones: later, and for types, as well."""
    room = room_of(module)
    upward = [
        other
        for other in sorted(IMPORTS[module])
        if room_of(other) != room and LAYER[room_of(other)] >= LAYER[room]
    ]
    assert upward == []


def test_no_circle():
    """No module imports itself by way of others."""
    order = list(TopologicalSorter(IMPORTS).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(["loaders", "configuration", "registry"], id="boot"),
        pytest.param(["__init__", "configuration", "application"], id="include"),
        pytest.param(["configuration", "registry", "application"], id="configure"),
        pytest.param(["__init__", "deferring", "delivery", "registry"], id="defer"),
        pytest.param(["outbox", "delivery", "application"], id="outbox"),
        pytest.param(["__init__", "worker", "registry", "application"], id="run"),
    ],
)
def test_ways_walk_downward(way):
    """Each way through the rooms leads from one to a lower one."""
    for room, following in pairwise(way):
        assert following in names(room)
        assert LAYER[following] < LAYER[room]


def test_short_modules():
    """No module has more than 260 lines."""
    long = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text("utf-8").splitlines()) > 260
    ]
    assert long == []
