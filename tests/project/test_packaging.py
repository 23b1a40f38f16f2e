"""What is shipped: the wheel, the sdist, and their metadata."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import EntryPoint, distribution, version
from pathlib import Path

import pytest
from documents import ROOT, Document, shell
from support import run

import pyramid_tasks

NOT_SOURCES = shutil.ignore_patterns(
    *(".coverage*", ".git", ".*_cache", ".tox", ".venv*"),
    *("*.egg-info", "*.py[co]", "__pycache__", "_build", "build", "dist", "var"),
)
FOLDERS = (
    *(".ci", ".github", "benchmarks", "docs", "pyramid_tasks", "sample"),
    *("tests", "typing_tests"),
)
FILES = {
    *("Makefile", "tox.ini", "pyproject.toml", "setup.py"),
    *(".editorconfig", ".pre-commit-config.yaml", ".readthedocs.yaml"),
    *("CHANGES.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE"),
    *("README.md", "SECURITY.md"),
}
#: What installing and running the sample and the tests leaves behind.
LITTER = {
    "docs/_build/index.html",
    "sample/sampleapp.egg-info/PKG-INFO",
    "sample/var/sample.sqlite",
    "tests/__pycache__/support.pyc",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, with litter.

    A copy, as setuptools leaves files beside what it builds from, and takes up what
    it finds there.
    """
    copy = tmp_path_factory.mktemp("packaging") / "sources"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCES)
    for name in LITTER:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).touch()
    return copy


@pytest.fixture(scope="module")
def built(sources: Path) -> Path:
    """Return a folder with an sdist, and the wheel that was built from it."""
    build = shell("python -m build --no-isolation --outdir ../built", sources)
    assert build.returncode == 0, build.stdout + build.stderr
    return sources.parent / "built"


@pytest.fixture
def wheel(built: Path) -> dict[str, bytes]:
    """Return the files in the wheel."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_below(root: Path, *folders: str) -> set[str]:
    """Return the names of all files in some folders."""
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.acceptance
def test_wheel(sources: Path, wheel: dict[str, bytes]) -> None:
    """The wheel has every file of the package, py.typed too, and no other code."""
    expected = files_below(sources, "pyramid_tasks")
    assert {"pyramid_tasks/py.typed", "pyramid_tasks/loaders/__init__.py"} <= expected
    assert {name for name in wheel if ".dist-info/" not in name} == expected


@pytest.mark.acceptance
def test_wheel_metadata(wheel: dict[str, bytes]) -> None:
    """The wheel says what it is, with the README and the license."""
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel[name].decode())
    assert metadata["Name"] == "pyramid-tasks"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    # What developers need is in dependency groups, and not published.
    extras = metadata.get_all("Provides-Extra")
    assert extras == ["debugtoolbar", "outbox", "redis", "retry", "tm"]


@pytest.mark.acceptance
def test_types_of_the_wheel(built: Path, tmp_path: Path) -> None:
    """A project sees the types of the package: mypy finds the errors of the page."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "installed")
    snippet = Document("docs/howto/types.md").block("Check types", "python")
    (tmp_path / "views.py").write_text(snippet)
    options = "--strict", "--ignore-missing-imports", "--allow-subclassing-any"
    path = str(tmp_path / "installed")
    result = run("mypy", *options, "views.py", cwd=tmp_path, PYTHONPATH=path)
    found = re.findall(r"^views.py:(\d+): error: ", result.stdout, re.MULTILINE)
    lines = snippet.splitlines()
    assert found, result.stdout + result.stderr
    assert [lines[int(number) - 1] for number in found] == [
        line for line in lines if line.endswith("  # error")
    ]


@pytest.mark.acceptance
def test_sdist(sources: Path, built: Path) -> None:
    """The sdist has all that a developer needs, and nothing that running it leaves."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = (member.name for member in archive if member.isfile())
        sdist = {name.partition("/")[2] for name in files}
    assert (FILES | files_below(sources, *FOLDERS)) - LITTER <= sdist
    assert LITTER & sdist == set()


def test_setup_py_is_a_shim() -> None:
    """Whatever there is to say stands in pyproject.toml, not in setup.py."""
    text = (ROOT / "setup.py").read_text()
    assert text.split() == ["from", "setuptools", "import", "setup", "setup()"]


def test_version() -> None:
    """The version is that of pyproject.toml, and of the newest entry of CHANGES.md."""
    declared, newest = (
        re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)[1]
        for name, pattern in {
            "pyproject.toml": r'^version = "(.+)"$',
            "CHANGES.md": r"^## (\S+)",
        }.items()
    )
    assert pyramid_tasks.__version__ == version("pyramid-tasks") == declared == newest


ENTRY_POINTS = distribution("pyramid-tasks").entry_points


@pytest.mark.parametrize("found", ENTRY_POINTS, ids=lambda found: found.name)
def test_entry_points_load(found: EntryPoint) -> None:
    """Every entry point names something that can be called, or a plugin of pytest."""
    loaded = found.load()
    assert callable(loaded.deferred_tasks if found.group == "pytest11" else loaded)


def test_entry_point_groups() -> None:
    """Celery, PasteDeploy and the loaders find us; plaster's own look-up does not."""
    assert {found.group for found in ENTRY_POINTS} == {
        *("celery.commands", "console_scripts", "paste.celery_factory"),
        *("plaster.celery_loader_factory", "pytest11"),
    }


@pytest.mark.skipif(
    not {"TOX_ENV_NAME", "WHEEL"} & os.environ.keys(),
    reason="tox and make test WHEEL=dist/... install the wheel",
)
def test_the_wheel_is_tested(tmp_path: Path) -> None:
    """The package comes from the wheel, here and in processes that tests start."""
    installed = Path(sysconfig.get_path("purelib"), "pyramid_tasks", "__init__.py")
    assert Path(pyramid_tasks.__file__).samefile(installed)
    code = "import pyramid_tasks; print(pyramid_tasks.__file__)"
    printed = run("python", "-c", code, cwd=tmp_path).stdout.strip()
    assert Path(printed).samefile(installed)
