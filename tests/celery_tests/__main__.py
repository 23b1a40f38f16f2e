"""Run Celery's own tests on this package, and those that fail on Celery alone too.

The tests are in the source distribution of the installed Celery, which pip fetches. The
file ``differences.toml`` lists the tests that may end otherwise, and why.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import celery
from servers import redis_server

HERE = Path(__file__).parent
INTEGRATION = ("canvas", "group_chains", "inspect", "tasks")
#: The parts of a run: what is tested, and by which deliveries.
PARTS = {
    "unit": (["t/unit"], [None]),
    "integration": (
        [f"t/integration/test_{name}.py" for name in INTEGRATION],
        ["immediate", "commit", "outbox"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make celery-tests", description=__doc__)
    parser.add_argument("parts", nargs="*", help="unit, integration; default, both")
    parser.add_argument("--folder", type=Path, required=True, help="for the download")
    parser.add_argument("--jobs", type=int, default=2, help="for the unit tests")
    parser.add_argument("-k", dest="keyword", default="", help="as for pytest")
    args = parser.parse_args()
    tests = fetch(args.folder.resolve() / celery.__version__)
    listed = tomllib.loads((HERE / "differences.toml").read_text())["differences"]
    for log in tests.glob("*.log"):
        log.unlink()
    print(f"What pytest says is in {tests}/*.log", flush=True)
    unlisted = 0
    for part in args.parts or PARTS:
        paths, deliveries = PARTS[part]
        paths = [path for path in paths if (tests / path).exists()]  # in this version
        options = ["-k", args.keyword]
        names_alone = run(tests, [*options, "--collect-only"], paths)
        options += ["-n", str(args.jobs) if part == "unit" else "0"]
        # At the same time: each has servers of its own, and waits for most of its time.
        with ExitStack() as stack:
            runs = [("pyramid_tasks", delivery) for delivery in deliveries]
            started = [start(tests, options, paths, *each) for each in runs]
            waiting = [stack.enter_context(each) for each in started]
            found_by = [outcomes() for outcomes in waiting]
        # With Celery alone, only those that did not pass.
        doubtful = {
            name
            for found in found_by
            for name in found | names_alone
            if found.get(name) != "passed"
        }
        expected = run(tests, options, sorted(doubtful)) if doubtful else {}
        print(f"{part}, Celery {celery.__version__} alone: {len(names_alone)} tests")
        for delivery, found in zip(deliveries, found_by, strict=True):
            by = f" by {delivery}" if delivery else ""
            print(f"{part}, with pyramid_tasks{by}: {summary(found)}")
            names = {name for name in doubtful if differ(found, expected, name)}
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
            shutil.unpack_archive(sdist, download, filter="data")
            (unpacked,) = (each for each in Path(download).iterdir() if each.is_dir())
            folder.mkdir(parents=True)
            # Not Celery itself: the installed one is tested.
            shutil.move(unpacked / "t", folder)
            shutil.move(unpacked / "pyproject.toml", folder)
    return folder


@contextmanager
def start(
    folder: Path,
    options: list[str],
    tests: list[str],
    what: str = "celery",
    delivery: str | None = None,
) -> Iterator[Callable[[], dict[str, str]]]:
    """Start tests, and give a function that waits and returns the outcome of each."""
    needs_server = any(test.startswith("t/integration") for test in tests)
    part, timeout = ("integration", 300) if needs_server else ("unit", 60)
    log_name = f"{part}-{what}-{delivery or 'alone'}.log"
    plugins = ("celery.contrib.pytest", "celery_tests.plugin", "no:rerunfailures")
    command = [sys.executable, "-m", "pytest", "-q", "--disable-warnings"]
    command += ["--continue-on-collection-errors", f"--timeout={timeout}"]
    command += [f"-p{plugin}" for plugin in plugins]
    with tempfile.TemporaryDirectory() as scratch:
        env = {
            **os.environ,
            "C_FORCE_ROOT": "1",
            "CELERY_TESTS_WITH": what,
            "CELERY_TESTS_DELIVERY": delivery or "",
            "CELERY_TESTS_FOLDER": scratch,
            "PYTHONPATH": os.pathsep.join([str(folder), str(HERE.parent)]),
        }
        redis = redis_server(Path(scratch), kept=("--save", ""))
        with redis if needs_server else nullcontext() as server:
            if server:
                env |= {"REDIS_PORT": str(server.port)}
                env |= {"TEST_BROKER": server.url, "TEST_BACKEND": server.url}
            with (folder / log_name).open("a") as log:
                process = subprocess.Popen(
                    [*command, *options, *tests],
                    cwd=folder,
                    env=env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

                def outcomes() -> dict[str, str]:
                    process.wait()
                    found = json.loads(Path(scratch, "outcomes.json").read_text())
                    return found or sys.exit(f"No test ran: see {folder / log_name}")

                try:
                    yield outcomes
                finally:
                    # Some tests fork, and leave what they forked.
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)


def run(*args) -> dict[str, str]:
    """Run tests, and return the outcome of each."""
    with start(*args) as outcomes:
        return outcomes()


def differ(found: dict[str, str], expected: dict[str, str], name: str) -> bool:
    """Whether a test ends worse than with Celery alone."""
    return found.get(name) not in {expected.get(name), "passed"}


def summary(outcomes: dict[str, str]) -> str:
    counts = Counter(outcomes.values())
    return ", ".join(f"{counts[each]} {each}" for each in sorted(counts))


def reasons(name: str, listed: list[dict]) -> list[dict]:
    return [each for each in listed if re.search(each["test"], name)]


def report(names: set[str], found: dict[str, str], listed: list[dict]) -> int:
    """Print the differences, and return the number of those that are not listed."""
    for each in listed:
        if number := sum(each in reasons(name, listed) for name in names):
            each["seen"] = True
            print(f"  listed, {number} of {each['test']}: {each['reason']}")
    unlisted = [name for name in names if not reasons(name, listed)]
    for name in sorted(unlisted):
        print(f"  NOT LISTED {name}: {found.get(name)}")
    return len(unlisted)


main()
