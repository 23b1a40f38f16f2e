"""Break the package in places, one at a time, and count those that tests notice.

First, all tests run once on the package as it is: coverage then knows which of them run
a line, also in processes that they start. A break is tried with those, the quickest
first. Each run has a copy of the checkout. On Linux, all that it started ends with it.
"""

import argparse
import ast
import difflib
import hashlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest

ROOT = Path(__file__).parents[1]
#: Which tests run which line. It is made again when a file has changed.
RECORD = ROOT / ".mutants"
#: How many percent of the breaks the tests have to notice.
BAR = 97
#: How many seconds of tests are enough for a break.
ENOUGH = 600.0
#: How many seconds more than usually a test may take before it counts as hung.
HANGS = 180

#: How the names of our copies begin.
PREFIX = f"m{os.getpid()}-"

OPPOSITE = {ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.LtE: ast.Gt}
OPPOSITE |= {ast.In: ast.NotIn, ast.Is: ast.IsNot}
OPPOSITE |= {other: one for one, other in OPPOSITE.items()}


class Break(NamedTuple):
    """A place of the package, and the text that replaces it."""

    file: str
    node: Any
    text: str
    in_function: bool

    def applied(self, source: bytes) -> bytes:
        starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
        start = starts[self.node.lineno - 1] + self.node.col_offset
        end = starts[self.node.end_lineno - 1] + self.node.end_col_offset
        return source[:start] + self.text.encode() + source[end:]


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Give what a break replaces at a node, and by what."""
    match node:
        case (
            ast.If(test=test)
            | ast.While(test=test)
            | ast.IfExp(test=test)
            | ast.comprehension(ifs=[test])
        ):
            # These have a break of their own that is the same.
            if not isinstance(test, ast.Compare | ast.UnaryOp | ast.Constant):
                yield test, f"not ({ast.unparse(test)})"
        case ast.Compare(left=left, ops=[operator], comparators=right):
            turned = ast.Compare(left, [OPPOSITE[type(operator)]()], right)
            yield node, f"({ast.unparse(turned)})"
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield node, f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield node, "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(
            value, ast.Constant
        ):
            yield node, "return None"
        case ast.Constant(value=bool() as value):
            yield node, str(not value)
        case ast.Subscript():
            yield from moves(node.slice)


def moves(index: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Give the numbers in an index, and the next ones.

    Other numbers are times and limits: a test would only repeat them.
    """
    for node in ast.walk(index):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield node, str(node.value + 1)


def is_left_out(node: ast.AST) -> bool:
    """Whether a node is not run, or is not for users."""
    match node:
        case (
            ast.JoinedStr()  # before Python 3.12, its nodes do not know their place
            | ast.If(test=ast.Name(id="TYPE_CHECKING"))
            | ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec" | "dataclass"))
            | ast.FunctionDef(name="__repr__")
            | ast.FunctionDef(decorator_list=[ast.Name(id="overload")])
            | ast.Expr(value=ast.Call(func=ast.Attribute(attr="debug")))
            | ast.Assign(targets=[ast.Name(id="__tracebackhide__")])
        ):
            return True
    return False


def breaks(file: str, node: ast.AST, *, in_function: bool = False) -> Iterator[Break]:
    """Give all breaks at a node of a file and below."""
    if is_left_out(node):
        return
    for place, text in changes(node):
        yield Break(file, place, text, in_function)
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns"}:
            continue
        inside = in_function or (field == "body" and isinstance(node, ast.FunctionDef))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from breaks(file, child, in_function=inside)


def sample(among: list[Break], count: int, seed: int) -> list[Break]:
    """Take one break by chance from each of so many equal parts."""
    chance = random.Random(seed)
    step = len(among) / count
    return [among[int((part + chance.random()) * step)] for part in range(count)]


def files(*folders: str) -> list[str]:
    """Return the files of the checkout that git has or would have."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.check_output((*command, *folders), cwd=ROOT, text=True)
    return sorted({name for name in names.split("\0") if (ROOT / name).is_file()})


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the checkout, with an environment whose programs import the copy."""
    with tempfile.TemporaryDirectory("", PREFIX, ignore_cleanup_errors=True) as name:
        root = Path(name, "copy")
        for file in files():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, root / file)
        Path(name, "tmp").mkdir()  # not inside, as a test copies the checkout there
        venv.create(root / ".venv", symlinks=True)
        packages = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
        site = next(root.glob(".venv/lib/python*/site-packages"))
        (site / "copy.pth").write_text(f"{root}\n{packages}\n")
        for program in Path(sys.prefix, "bin").iterdir():
            own = root / ".venv/bin" / program.name
            if not own.exists() and program.read_bytes().startswith(b"#!"):
                own.write_text(program.read_text().replace(sys.prefix, f"{root}/.venv"))
                own.chmod(0o755)
        try:
            yield root
        finally:
            end_processes(root.parent.name)


def end_processes(prefix: str) -> None:
    """Kill what was started in a copy, whoever its parent is now."""
    mark = os.fsencode(f"TMPDIR={tempfile.gettempdir()}/{prefix}")
    found = True
    while found:  # a process may have started another one meanwhile
        found = False
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # the process has ended, or is of another user
                if mark in environ.read_bytes():
                    os.kill(int(environ.parent.name), signal.SIGKILL)
                    found = True


def run(root: Path, *command: str, timeout: float | None = None) -> tuple[int, str]:
    """Run a Python module in a copy, and return its status and what it printed."""
    environ = os.environ | {
        "COVERAGE_FILE": f"{root}/.coverage",
        "PYTHONPATH": f"{root}/tests",  # for this module, as a plugin
        "TMPDIR": f"{root.parent}/tmp",
    }
    command = (root / ".venv/bin/python", "-m", *command)
    log = root.parent / "output"
    with log.open("wb") as output, Path(os.devnull).open() as nothing:
        files = {"stdin": nothing, "stdout": output, "stderr": output}
        options = {"env": environ, "start_new_session": True, "timeout": timeout}
        done = subprocess.run(command, cwd=root, check=False, **files, **options)
    return done.returncode, log.read_text(errors="replace")


class Record:
    """Which tests run a line, and how many seconds each of them takes."""

    def __init__(self, jobs: int) -> None:
        digest = hashlib.sha256(sys.version.encode())
        for file in files("pyramid_tasks", "tests", ":!tests/mutants.py"):
            digest.update(file.encode() + (ROOT / file).read_bytes())
        folder = RECORD / digest.hexdigest()[:16]
        if not (folder / "tests.json").exists():
            shutil.rmtree(RECORD, ignore_errors=True)
            self._make(folder, jobs)
        self._root, self.seconds = json.loads((folder / "tests.json").read_text())
        self._lines = coverage.CoverageData(str(folder / "coverage"))
        self._lines.read()

    def tests(self, broken: Break) -> list[str]:
        """Return the tests that run a line, the quickest first.

        A line that runs when its module is imported has the tests of the whole module.
        """
        lines = self._lines.contexts_by_lineno(f"{self._root}/{broken.file}")
        here = range(broken.node.lineno, broken.node.end_lineno + 1)
        tests = {test for line in here for test in lines.get(line, ())}
        if not broken.in_function or "" in tests:
            tests = set(itertools.chain.from_iterable(lines.values()))
        return sorted(tests & self.seconds.keys(), key=self.seconds.__getitem__)

    @staticmethod
    def _make(folder: Path, jobs: int) -> None:
        print("Recording which tests run which lines ...", flush=True)
        with copied() as root:
            command = ("coverage", "run", "-m", "pytest", "-q", "-p", "mutants")
            options = (f"--numprocesses={jobs}", "--dist=worksteal", "-m", "not faults")
            status, output = run(root, *command, *options)
            if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
                sys.exit(output)
            print(*re.findall(r"(?m)^(?:FAILED|ERROR) .*", output), sep="\n")
            seconds = json.loads((root / "seconds.json").read_text())
            run(root, "coverage", "combine", "--quiet")
            folder.mkdir(parents=True)
            shutil.copy(root / ".coverage", folder / "coverage")
            record = json.dumps([str(root), seconds])
        # A name that another copy does not have would count as a break that is noticed.
        with copied() as other:
            (other / "names").write_text("\n".join(seconds))
            status, output = run(other, "pytest", "-q", "--collect-only", "@names")
            if status != pytest.ExitCode.OK:
                sys.exit(output)
        # The last one, as it says that the record is whole.
        (folder / "tests.json").write_text(record)


# The hooks are for pytest while it records, with this module as a plugin.

_seconds: Counter[str] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if measured := coverage.Coverage.current():
        measured.switch_context(item.nodeid)
        measured.config.context = item.nodeid  # for the processes that it starts
        os.environ["COVERAGE_PROCESS_CONFIG"] = measured.config.serialize()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test that does not pass is of no use.
    _seconds[report.nodeid] += report.duration if report.passed else math.inf


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # not in a process of pytest-xdist
        passed = {test: each for test, each in _seconds.items() if each < math.inf}
        (session.config.rootpath / "seconds.json").write_text(json.dumps(passed))


def attempt(broken: Break, record: Record) -> tuple[bool, str]:
    """Tell whether the tests notice a break, and in words which one did."""
    source = (ROOT / broken.file).read_bytes()
    known = record.tests(broken)
    spent = itertools.accumulate(map(record.seconds.__getitem__, known))
    tests = known[: sum(seconds < ENOUGH for seconds in spent)]
    status, output = 0, ""
    if tests:
        with copied() as root, suppress(subprocess.TimeoutExpired):
            (root / broken.file).write_bytes(broken.applied(source))
            (root / "names").write_text("\n".join(tests))
            hangs = f"faulthandler_timeout={HANGS + 2 * record.seconds[tests[-1]]}"
            options = ("-o", hangs, "-o", "faulthandler_exit_on_timeout=true")
            command = ("pytest", "-q", "-x", "@names", *options)
            status = -1  # if it is stuck between two tests
            status, output = run(root, *command, timeout=HANGS + 5 * ENOUGH)
    where = f"{broken.file}:{broken.node.lineno}"
    if status:
        by = re.findall(r"(?m)^(?:FAILED|ERROR) (\S+)", output)
        return True, f"noticed   {where}  {by[-1] if by else 'it hangs or breaks'}"
    texts = (text.decode().splitlines() for text in (source, broken.applied(source)))
    diff = itertools.islice(difflib.unified_diff(*texts, n=0, lineterm=""), 3, None)
    ran = f"{len(tests)} of {len(known)} tests that run it"
    return False, "\n    ".join([f"SURVIVED  {where}  {ran}", *diff])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="how many breaks")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    record = Record(args.jobs)
    among = [
        broken
        for file in files("pyramid_tasks/*.py")
        for broken in breaks(file, ast.parse((ROOT / file).read_bytes()))
    ]
    chosen = sample(among, min(args.count, len(among)), args.seed)
    print(f"{len(chosen)} of {len(among)} breaks, SEED={args.seed}", flush=True)
    noticed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for is_noticed, words in pool.map(lambda it: attempt(it, record), chosen):
                noticed += is_noticed
                print(words, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes(PREFIX)
            raise
    percent = 100 * noticed / len(chosen)
    print(f"{noticed} of {len(chosen)} noticed: {percent:.1f} %; {BAR} % are needed")
    sys.exit(percent < BAR)


if __name__ == "__main__":
    main()
