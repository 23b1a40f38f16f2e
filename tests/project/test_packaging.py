"""What is shipped: the wheel, the sdist, and their metadata."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import EntryPoint, distribution, version
from pathlib import Path

import pytest
from documents import Document
from support import run

import pyramid_tasks

ROOT = Path(__file__).parents[2]

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
    options = "--no-isolation", "--outdir", "../built"
    build = subprocess.run(
        [sys.executable, "-m", "build", *options],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return sources.parent / "built"


@pytest.fixture
def wheel(built: Path) -> dict[str, bytes]:
    """Return the files in the wheel."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def wheel_metadata(wheel: dict[str, bytes]) -> Message:
    """Return the metadata of the wheel."""
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel[name].decode())


@pytest.fixture
def sdist(built: Path) -> set[str]:
    """Return the names of the files in the sdist, below its folder."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = (member.name for member in archive if member.isfile())
        return {name.partition("/")[2] for name in files}


def files_below(root: Path, *folders: str) -> set[str]:
    """Return the names of all files in some folders."""
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.acceptance
def test_wheel_has_the_package(sources: Path, wheel: dict[str, bytes]) -> None:
    """The wheel has every file of the package, py.typed too, and no other code."""
    expected = files_below(sources, "pyramid_tasks")
    assert {"pyramid_tasks/py.typed", "pyramid_tasks/loaders/__init__.py"} <= expected
    assert {name for name in wheel if ".dist-info/" not in name} == expected


@pytest.mark.acceptance
def test_wheel_metadata(wheel: dict[str, bytes], wheel_metadata: Message) -> None:
    """The wheel says what it is, with the README and the license."""
    assert wheel_metadata["Name"] == "pyramid-tasks"
    assert wheel_metadata["License-Expression"] == "MIT"
    assert wheel_metadata["Requires-Python"] == ">=3.11"
    assert wheel_metadata["Description-Content-Type"] == "text/markdown"
    assert wheel_metadata.get_payload() == (ROOT / "README.md").read_text()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    # What developers need is in dependency groups, and not published.
    extras = wheel_metadata.get_all("Provides-Extra")
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
    result = run(
        *("mypy", *options, "views.py"),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "installed"),
    )
    found = re.findall(r"^views.py:(\d+): error: ", result.stdout, re.MULTILINE)
    lines = snippet.splitlines()
    assert found, result.stdout + result.stderr
    assert [lines[int(number) - 1] for number in found] == [
        line for line in lines if line.endswith("  # error")
    ]


@pytest.mark.acceptance
def test_sdist_has_the_project(sources: Path, sdist: set[str]) -> None:
    """The sdist has all that a developer needs: the tests, the sample, make and tox."""
    assert (FILES | files_below(sources, *FOLDERS)) - LITTER <= sdist


@pytest.mark.acceptance
def test_sdist_has_no_litter(sdist: set[str]) -> None:
    """What running the sample and the tests leaves behind is not in the sdist."""
    assert LITTER & sdist == set()


def test_setup_py_is_a_shim() -> None:
    """Whatever there is to say stands in pyproject.toml, not in setup.py."""
    text = (ROOT / "setup.py").read_text()
    assert text.split() == ["from", "setuptools", "import", "setup", "setup()"]


def test_version() -> None:
    """The version is that of pyproject.toml, by way of the installed metadata."""
    declared = re.search(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert declared
    assert pyramid_tasks.__version__ == version("pyramid-tasks") == declared[1]


def test_changes_begin_with_this_version() -> None:
    """The newest entry of CHANGES.md is about this version."""
    text = (ROOT / "CHANGES.md").read_text()
    newest = re.search(r"^## (\S+)", text, re.MULTILINE)
    assert newest
    assert newest[1] == pyramid_tasks.__version__


@pytest.mark.parametrize(
    "entry_point",
    [
        pytest.param(found, id=f"{found.group}-{found.name}")
        for found in distribution("pyramid-tasks").entry_points
    ],
)
def test_entry_points_load(entry_point: EntryPoint) -> None:
    """Every entry point names something that can be called, or a plugin of pytest."""
    found = entry_point.load()
    assert callable(found.deferred_tasks if entry_point.group == "pytest11" else found)


def test_entry_point_groups() -> None:
    """Celery, PasteDeploy and the loaders find us; plaster's own look-up does not."""
    groups = {found.group for found in distribution("pyramid-tasks").entry_points}
    assert groups == {
        "celery.commands",
        "console_scripts",
        "paste.celery_factory",
        "plaster.celery_loader_factory",
        "pytest11",
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
