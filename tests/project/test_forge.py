"""What a forge, Read the Docs, pre-commit and the index read, and the addresses."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT
from markdown_it import MarkdownIt
from readme_renderer import markdown
from support import run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
URLS: dict[str, str] = PROJECT["project"]["urls"]
#: The page that the index makes of the package's name.
INDEX = f"https://pypi.org/project/{PROJECT['project']['name']}/"
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*  ## ", MAKEFILE, re.MULTILINE))

GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
CONFIG = GITHUB / "ISSUE_TEMPLATE/config.yml"
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-config": [CONFIG],
    "vendor.github-issue-forms": sorted({*CONFIG.parent.glob("*.yml")} - {CONFIG}),
    "vendor.readthedocs": [ROOT / ".readthedocs.yaml"],
}

GLOBS = (
    "*.md",
    ".github/**/*.*",
    "docs/**/*.md",
    "sample/*.md",
    "pyramid_tasks/**/*.py",
)
#: (file, address) for every address with the name of the package in it.
ADDRESSES = [
    (path.relative_to(ROOT).as_posix(), address)
    for glob in GLOBS
    for path in sorted(ROOT.glob(glob))
    for address in re.findall(
        r"https?://[^\s<>()\"']*pyramid[-_]tasks[^\s<>()\"']*", path.read_text()
    )
]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def jobs(path: Path) -> dict[str, Any]:
    return dict(load(path)["jobs"])


def is_ours(command: str) -> bool:
    """Whether it is ``make`` with targets that there are, or a script in ``.ci``."""
    program, *arguments = shlex.split(command)
    if program == "make":
        wanted = {each for each in arguments if "=" not in each}
        return bool(wanted) and wanted <= TARGETS
    return program.startswith(".ci/") and os.access(ROOT / program, os.X_OK)


@pytest.mark.acceptance
@pytest.mark.parametrize("schema", SCHEMAS)
def test_yaml_is_valid(schema: str) -> None:
    """What GitHub and Read the Docs read has the form that they publish."""
    assert SCHEMAS[schema]
    options = ("--builtin-schema", schema)
    done = run("check-jsonschema", *options, *SCHEMAS[schema], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_developers_run(path: Path) -> None:
    """Each command of a workflow is a target of the Makefile, or a script in .ci."""
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    commands = "\n".join(step["run"] for step in steps if "run" in step).splitlines()
    assert commands
    assert [command for command in commands if not is_ours(command)] == []


def test_pythons_of_the_matrix() -> None:
    """The suite runs with each Python of the classifiers."""
    classifiers = "\n".join(PROJECT["project"]["classifiers"])
    declared = re.findall(r":: Python :: (3\..+)", classifiers)
    matrix = jobs(GITHUB / "workflows/checks.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == declared


def test_services_of_the_matrix() -> None:
    """A container's services are brought to the ports that they have elsewhere."""
    services = jobs(GITHUB / "workflows/checks.yml")["test"]["services"]
    script = (ROOT / ".ci/container").read_text()
    forwarded = dict(re.findall(r"(\w+):(\d+)", script.partition("for service in")[2]))
    assert {name: [f"{port}:{port}"] for name, port in forwarded.items()} == {
        name: service["ports"] for name, service in services.items()
    }


def test_only_the_publisher_may_publish() -> None:
    """The right to publish is with the one job that only takes what another built."""
    granted = {
        (path.stem, name)
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        if "id-token" in job.get("permissions", {})
    }
    assert granted == {("release", "publish")}
    assert all(load(path)["permissions"] == {"contents": "read"} for path in WORKFLOWS)
    steps = jobs(GITHUB / "workflows/release.yml")["publish"]["steps"]
    assert not [step for step in steps if "run" in step]


def test_read_the_docs_runs_make_docs() -> None:
    """Read the Docs builds the site as a developer does."""
    build, *rest = load(ROOT / ".readthedocs.yaml")["build"]["commands"]
    assert build.startswith("make docs")
    assert is_ours(build)
    assert any("docs/_build/html" in command for command in rest)


def test_hooks_are_those_of_lint() -> None:
    """Each hook is a target of the Makefile, or has the version that lint has."""
    (repo,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        if hook["language"] == "system":
            assert is_ours(hook["entry"]), hook
        else:
            lint = PROJECT["dependency-groups"]["lint"]
            assert set(hook["additional_dependencies"]) <= set(lint)


def test_there_are_addresses() -> None:
    """The README and the files for the forge have addresses to look at."""
    assert {"README.md", "SECURITY.md"} <= {name for name, _ in ADDRESSES}
    for label in ("Changelog", "Issues"):
        assert URLS[label].startswith((URLS["Documentation"], URLS["Repository"]))


@pytest.mark.parametrize(("name", "address"), ADDRESSES)
def test_address(name: str, address: str) -> None:
    """An address of this project is that of pyproject.toml, and leads somewhere."""
    docs, repository = URLS["Documentation"], URLS["Repository"]
    assert address.startswith((docs, f"{repository}/", INDEX)), name
    if address.startswith(docs):
        page, _, anchor = address.removeprefix(docs).partition("#")
        path = ROOT / "docs" / re.sub(r"\.html$", ".md", page or "index.html")
        assert path.suffix == ".md"
        assert not anchor or anchor in anchors(path.read_text())
    elif address.startswith(blob := f"{repository}/blob/main/"):
        assert (ROOT / address.removeprefix(blob)).exists()


def anchors(text: str) -> set[str]:
    """Return the names that headings have as targets of links."""
    tokens = MarkdownIt().parse(text)
    return {
        re.sub(r"[^\w -]", "", after.content.lower()).replace(" ", "-")
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    }


def test_readme_on_the_index() -> None:
    """The index can show the README, and no link in it leads nowhere there."""
    html = markdown.render((ROOT / "README.md").read_text())
    targets = {f"#{name}" for name in re.findall(r' id="([^"]*)"', html)}
    links = re.findall(r' (?:href|src)="([^"]*)"', html)
    outside = [link for link in links if link not in targets]
    assert len(outside) > 10
    assert [link for link in outside if not re.match("https?://", link)] == []
    # A reference without its address stays as it was typed.
    text = re.sub(r"<(pre|code)\b.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.findall(r"\]\[|\[\w[\w ]*\]", text)
