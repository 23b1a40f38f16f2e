"""What the tests of the documents share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def import_snippets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ModuleType]:
    """Return a function that imports blocks of Python as one module.

    Its keyword arguments are what the snippets refer to without having it.
    """

    def import_snippets(*texts: str, **names: object) -> ModuleType:
        (tmp_path / "snippets.py").write_text("\n".join(texts))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "snippets", raising=False)
        module = importlib.import_module("snippets")
        vars(module).update(names)
        return module

    return import_snippets
