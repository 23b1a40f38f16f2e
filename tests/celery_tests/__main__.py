"""Run Celery's own tests on this package, and compare with what they find of Celery.

The tests are in the source distribution of the installed Celery, which pip fetches. The
file ``differences.toml`` lists the tests that may end otherwise, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import celery
from servers import listens
from support import free_port, wait_until

HERE = Path(__file__).parent
#: The parts of a run: what is tested, and by which deliveries.
PARTS = {
    "unit": (["t/unit"], [None]),
    "integration": (
        [
            f"t/integration/test_{name}.py"
            for name in ("canvas", "group_chains", "inspect", "tasks")
        ],
        ["immediate", "commit", "outbox"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make celery-tests", description=__doc__)
    parser.add_argument("parts", nargs="*", help="unit, integration; default, both")
    parser.add_argument("--folder", type=Path, required=True, help="for the download")
    parser.add_argument("--jobs", default="2", help="processes for the unit tests")
    parser.add_argument("-k", dest="keyword", default="", help="as for pytest")
    args = parser.parse_args()
    tests = fetch(args.folder.resolve() / celery.__version__)
    listed = tomllib.loads((HERE / "differences.toml").read_text())["differences"]
    for log in tests.glob("*.log"):
        log.unlink()
    print(f"What pytest says is in {tests}/*.log")
    unlisted = 0
    for part in args.parts or PARTS:
        paths, deliveries = PARTS[part]
        options = ["-k", args.keyword, "-n", args.jobs if part == "unit" else "0"]
        expected = run(tests, options, paths)
        print(f"{part}, Celery {celery.__version__} alone: {summary(expected)}")
        for delivery in deliveries:
            found = run(tests, options, paths, "pyramid_tasks", delivery)
            by = f" by {delivery}" if delivery else ""
            print(f"{part}, with pyramid_tasks{by}: {summary(found)}")
            names = {name for name in found | expected if differ(found, expected, name)}
            if news := [name for name in sorted(names) if not reasons(name, listed)]:
                # Once more, as some depend on the time that they have.
                again = run(tests, options, news, "pyramid_tasks", delivery)
                alone = run(tests, options, news)
                names -= {name for name in news if not differ(again, alone, name)}
            unlisted += report(names, found, listed)
    for each in listed:
        if not each.get("seen") and not args.parts and not args.keyword:
            print(f"NOT SEEN {each['test']}: {each['reason']}")
    sys.exit(f"{unlisted} differences are not listed" if unlisted else 0)


def fetch(folder: Path) -> Path:
    """Fetch the tests of the installed Celery, once, and return their folder."""
    if not (folder / "t").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as download:
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
            fetched = ("--no-binary=celery", "--no-deps", f"--dest={download}")
            requirement = f"celery=={celery.__version__}"
            subprocess.run([*pip, "download", "-q", *fetched, requirement], check=True)
            (sdist,) = Path(download).glob("*.tar.gz")
            with tarfile.open(sdist) as archive:
                archive.extractall(download, filter="data")
            (unpacked,) = (each for each in Path(download).iterdir() if each.is_dir())
            folder.mkdir(parents=True)
            # Not Celery itself: the installed one is tested.
            shutil.move(unpacked / "t", folder)
            shutil.move(unpacked / "pyproject.toml", folder)
    return folder


def run(
    folder: Path,
    options: list[str],
    tests: list[str],
    what: str = "celery",
    delivery: str | None = None,
) -> dict[str, str]:
    """Run tests, and return the outcome of each."""
    needs_server = any("integration" in test for test in tests)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        record = scratch / "outcomes.json"
        env = {
            **os.environ,
            "C_FORCE_ROOT": "1",
            "CELERY_TESTS_WITH": what,
            "CELERY_TESTS_RECORD": str(record),
            "CELERY_TESTS_FOLDER": name,
            "PYTHONPATH": os.pathsep.join([str(folder), str(HERE.parent)]),
        }
        if delivery:
            env["CELERY_TESTS_DELIVERY"] = delivery
            env["CELERY_TESTS_DATABASE"] = f"sqlite:///{scratch}/outbox.sqlite"
        with redis_server(name) if needs_server else nullcontext() as port:
            if port:
                url = f"redis://localhost:{port}/0"
                env |= {"REDIS_PORT": str(port)}
                env |= {"TEST_BROKER": url, "TEST_BACKEND": url}
            plugins = ("celery.contrib.pytest", "celery_tests.plugin")
            command = [sys.executable, "-m", "pytest", "-q", "--disable-warnings"]
            command.append("--continue-on-collection-errors")
            command += [f"-p{plugin}" for plugin in (*plugins, "no:rerunfailures")]
            part = "integration" if needs_server else "unit"
            command += ["--timeout=300" if needs_server else "--timeout=60"]
            log_name = f"{part}-{what}-{delivery or 'alone'}.log"
            with (folder / log_name).open("a") as log:
                process = subprocess.Popen(
                    [*command, *options, *tests],
                    cwd=folder,
                    env=env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                try:
                    process.wait()
                finally:
                    # Some tests fork, and leave what they forked.
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        return json.loads(record.read_text())


@contextmanager
def redis_server(folder: str) -> Iterator[int]:
    """Start Redis, which writes nothing to its disk, and give its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--dir", folder, "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), what=lambda: "Redis")
        yield port
    finally:
        process.terminate()
        process.wait()


def differ(found: dict[str, str], expected: dict[str, str], name: str) -> bool:
    """Whether a test ends worse than with Celery alone."""
    return found.get(name) not in {expected.get(name), "passed"}


def summary(outcomes: dict[str, str]) -> str:
    values = list(outcomes.values())
    return ", ".join(f"{values.count(each)} {each}" for each in sorted(set(values)))


def reasons(name: str, listed: list[dict]) -> list[dict]:
    return [each for each in listed if re.search(each["test"], name)]


def report(names: set[str], found: dict[str, str], listed: list[dict]) -> int:
    """Print the differences, and return the number of those that are not listed."""
    unlisted = set(names)
    for each in listed:
        of_each = {name for name in names if each in reasons(name, listed)}
        if of_each:
            each["seen"] = True
            print(f"  listed, {len(of_each)} of {each['test']}: {each['reason']}")
        unlisted -= of_each
    for name in sorted(unlisted):
        print(f"  NOT LISTED {name}: {found.get(name)}")
    return len(unlisted)


main()
