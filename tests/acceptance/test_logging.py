"""The logging of a worker: that of the file where it has one, Celery's otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import QUICK, Process, ini_form, run, start

pytestmark = pytest.mark.acceptance

LOGGING = """
[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = ini

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = ini

[formatter_ini]
format = from the ini: %(process)d %(name)s: %(message)s
"""

CELERYS_FORMAT = "INFO/MainProcess] "

before_and_after = pytest.mark.parametrize(
    "after", [False, True], ids=["before", "after"]
)


def call_in(worker: Process, name: str, cwd: Path) -> str:
    """Run a task in a worker, and return the line it logged."""
    worker.wait_for(" ready.")
    called = run(*ini_form("config.ini", "call", name, after=False), cwd=cwd)
    assert called.returncode == 0, called.stderr
    worker.wait_for("said by a task")
    return next(line for line in worker.output.splitlines() if "said by a task" in line)


@pytest.mark.parametrize(("pool", "after"), [("solo", True), ("prefork", False)])
def test_loggers_of_the_file(
    pool: str,
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """``[loggers]`` configures the worker's logging, in prefork children too."""
    write_example(broker=redis_queue, more=LOGGING)
    command = ini_form("config.ini", "worker", f"--pool={pool}", *QUICK, after=after)
    with start(*command, cwd=tmp_path) as worker:
        line = call_in(worker, "exampleapp.log", tmp_path)
        assert line.startswith("from the ini: ")
        assert line.endswith(" exampleapp: said by a task")
        is_child = line.split()[3] != str(worker.popen.pid)
        assert is_child == (pool == "prefork")
        assert CELERYS_FORMAT not in worker.output
        # Once, by one handler.
        assert worker.output.count("said by a task") == 1


def test_celerys_logging_without_loggers(
    write_example: Callable[..., Path], redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """Without ``[loggers]``, Celery's own logging stands."""
    write_example(broker=redis_queue)
    options = ("--pool=solo", "--loglevel=INFO", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=False)
    with start(*command, cwd=tmp_path) as worker:
        line = call_in(worker, "exampleapp.log", tmp_path)
        assert CELERYS_FORMAT in line


@before_and_after
def test_celerys_logging_forced(
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """``celery.worker_hijack_root_logger = true`` forces Celery's logging."""
    write_example(
        broker=redis_queue, app="celery.worker_hijack_root_logger = true", more=LOGGING
    )
    options = ("--pool=solo", "--loglevel=INFO", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=after)
    with start(*command, cwd=tmp_path) as worker:
        line = call_in(worker, "exampleapp.log", tmp_path)
        assert CELERYS_FORMAT in line
        assert worker.output.count("said by a task") == 1


def test_variables_in_logging(
    write_example: Callable[..., Path], redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """``--ini-var`` and ``%(here)s`` reach the logging sections."""
    text = LOGGING.replace("StreamHandler", "FileHandler")
    text = text.replace("(sys.stderr,)", "('%(here)s/%(log)s.log',)")
    write_example(broker=redis_queue, more=text)
    options = ("--ini-var", "log=chosen", "--pool=solo", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=True)
    log = tmp_path / "chosen.log"
    with start(*command, cwd=tmp_path) as worker:
        worker.wait_until(lambda: log.exists() and " ready." in log.read_text())
        assert log.read_text().startswith("from the ini: ")


def test_loggers_of_the_file_in_beat(
    write_example: Callable[..., Path], redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """``[loggers]`` configures the logging of ``celery beat``, too."""
    write_example(broker=redis_queue, more=LOGGING)
    with start(*ini_form("config.ini", "beat", after=False), cwd=tmp_path) as beat:
        beat.wait_for("beat: Starting...")
        assert "celery.beat: beat: Starting..." in beat.output
        assert "from the ini: " in beat.output


@pytest.mark.parametrize("index", ["", "%I"], ids=["one file", "a file a process"])
def test_logfile_beside_the_loggers_of_the_file(
    index: str,
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
) -> None:
    """``--logfile`` is written too, in the format of the file, and once a line."""
    write_example(broker=redis_queue, more=LOGGING)
    options = (f"--logfile={tmp_path}/of%n{index}.txt", "--hostname=it@host", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=False)
    with start(*command, cwd=tmp_path) as worker:
        call_in(worker, "exampleapp.log", tmp_path)
        main = (tmp_path / "ofit.txt").read_text()
        assert main.startswith("from the ini: ")
        logs = "".join(path.read_text() for path in tmp_path.glob("ofit*.txt"))
        assert logs.count("said by a task") == 1
        assert ("said by a task" in main) == (not index)
