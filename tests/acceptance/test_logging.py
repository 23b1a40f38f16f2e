"""The logging of a worker: that of the file where it has one, Celery's otherwise."""

from contextlib import contextmanager

import pytest
from support import QUICK, ini_form, logging_sections, run, start

pytestmark = pytest.mark.acceptance

LOGGING = logging_sections("from the ini: %(process)d %(name)s: %(message)s")

CELERYS_FORMAT = "INFO/MainProcess] "


@pytest.fixture
def worker(write_example, redis_queue, tmp_path):
    """Return a context in which a worker runs, with sections for logging in its ini."""

    @contextmanager
    def worker(*options, after=False, more=LOGGING, app=""):
        write_example(broker=redis_queue, app=app, more=more)
        command = ini_form("config.ini", "worker", *options, *QUICK, after=after)
        with start(*command, cwd=tmp_path) as worker:
            yield worker

    return worker


def log_in(worker):
    """Run a task in a worker, and return the line it logged."""
    worker.wait_for(" ready.")
    command = ini_form("config.ini", "call", "exampleapp.log")
    called = run(*command, cwd=worker.log.parent)
    assert called.returncode == 0, called.stderr
    worker.wait_for("said by a task")
    return next(line for line in worker.output.splitlines() if "said by a task" in line)


@pytest.mark.parametrize(("pool", "after"), [("solo", True), ("prefork", False)])
def test_loggers_of_the_file(worker, pool, after):
    """``[loggers]`` configures the worker's logging, in prefork children too."""
    with worker(f"--pool={pool}", after=after) as process:
        line = log_in(process)
        assert line.startswith("from the ini: ")
        assert line.endswith(" exampleapp: said by a task")
        is_child = line.split()[3] != str(process.popen.pid)
        assert is_child == (pool == "prefork")
        assert CELERYS_FORMAT not in process.output
        # Once, by one handler.
        assert process.output.count("said by a task") == 1


@pytest.mark.parametrize(
    ("parts", "after"),
    [
        ({"more": ""}, False),
        ({"more": "[logging]\nof = another package"}, False),
        ({"app": "celery.worker_hijack_root_logger = true"}, False),
        ({"app": "celery.worker_hijack_root_logger = true"}, True),
    ],
    ids=["no loggers", "another section", "forced-before", "forced-after"],
)
def test_celerys_logging(worker, parts, after):
    """It stands without ``[loggers]``, and where ``worker_hijack_root_logger`` asks."""
    with worker("--pool=solo", "--loglevel=INFO", after=after, **parts) as process:
        assert CELERYS_FORMAT in log_in(process)
        assert process.output.count("said by a task") == 1


def test_variables_in_logging(worker, tmp_path):
    """``--ini-var`` and ``%(here)s`` reach the logging sections."""
    text = LOGGING.replace("StreamHandler", "FileHandler")
    text = text.replace("(sys.stderr,)", "('%(here)s/%(log)s.log',)")
    log = tmp_path / "chosen.log"
    options = ("--ini-var", "log=chosen", "--pool=solo")
    with worker(*options, after=True, more=text) as process:
        process.wait_until(lambda: log.exists() and " ready." in log.read_text())
        assert log.read_text().startswith("from the ini: ")


def test_loggers_of_the_file_in_beat(write_example, redis_queue, tmp_path):
    """``[loggers]`` configures the logging of ``celery beat``, too."""
    write_example(broker=redis_queue, more=LOGGING)
    with start(*ini_form("config.ini", "beat"), cwd=tmp_path) as beat:
        beat.wait_for("beat: Starting...")
        assert "celery.beat: beat: Starting..." in beat.output
        assert "from the ini: " in beat.output


@pytest.mark.parametrize("index", ["", "%I"], ids=["one file", "a file a process"])
def test_logfile_beside_the_loggers_of_the_file(worker, index, tmp_path):
    """``--logfile`` is written too, in the format of the file, and once a line."""
    logfile = f"--logfile={tmp_path}/of%n{index}.txt"
    with worker(logfile, "--hostname=it@host") as process:
        log_in(process)
        main = (tmp_path / "ofit.txt").read_text()
        assert main.startswith("from the ini: ")
        logs = "".join(path.read_text() for path in tmp_path.glob("ofit*.txt"))
        assert logs.count("said by a task") == 1
        assert ("said by a task" in main) == (not index)
