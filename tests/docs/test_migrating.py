"""The applications of the page on migrating behave as it says.

What it says of them before cannot be run here: it stands in a table, and not in blocks.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from documents import Document
from support import Process, as_ini, free_port, run, serve, start, unique

PAGE = Document("docs/howto/migrating.md")
CODE, INI, COMMANDS = (
    PAGE.block("From pyramid_celery", each) for each in ("python", "ini", "sh")
)
OLD_LINE = PAGE.block("From the 0.4 line of pyramid_tasks", "python")

pytestmark = pytest.mark.acceptance

# What another package brings.
PACKAGE = """
from celery import shared_task


@shared_task
def task():
    return "shared"
"""


class Migrated:
    """The application that came from pyramid_celery, in a folder."""

    def __init__(self, folder: Path, broker: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.env = {"PYTHONPATH": str(folder)}
        # The queues are those of the page, below a prefix of this test.
        prefix = broker.pop("broker_transport_options.global_keyprefix")
        self.prefix = {"global_keyprefix": f"{prefix}{unique()}:"}
        del broker["task_default_queue"]
        self.broker = broker
        (folder / "myapp.py").write_text(CODE)
        (folder / "package.py").write_text(PACKAGE)
        lines = r"broker_url = .*\nresult_backend = .*\n"
        ini, number = re.subn(lines, lambda _: f"{as_ini(self.broker, '')}\n", INI)
        assert number == 1
        options = '{"visibility_timeout": 7200}'
        assert ini.count(options) == 1
        prefixed = json.dumps(json.loads(options) | self.prefix)
        ini = ini.replace(options, prefixed)
        ini = ini.replace("imports = myapp", "imports = myapp package")
        self.ini = folder / "development.ini"
        self.ini.write_text(ini.replace("6543", str(self.port)))

    def run(self, *command: object, fresh: bool | None = None) -> str:
        done = run(*command, cwd=self.folder, fresh=fresh, **self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def python(self, code: str) -> str:
        """Run lines in which ``request`` is one of the application."""
        before = "from pyramid.paster import bootstrap\n"
        before += "request = bootstrap('development.ini')['request']\n"
        script = self.folder / "lines.py"
        script.write_text(before + code)
        return self.run(script, fresh=False)

    def result(self, task_id: str) -> str:
        return self.run("celery", "--ini", "development.ini", "result", task_id)


@pytest.fixture
def migrated(tmp_path: Path, redis_broker: dict[str, str]) -> Migrated:
    return Migrated(tmp_path, dict(redis_broker))


@pytest.fixture
def worker(migrated: Migrated) -> Iterator[Process]:
    """Run both commands of the page."""
    celery, pserve = COMMANDS.splitlines()
    assert pserve == f"pserve {migrated.ini.name}"
    options = {"cwd": migrated.folder, **migrated.env}
    with (
        start(*celery.split(), "--loglevel=INFO", **options) as worker,
        serve(migrated.ini.name, migrated.port, **options),
    ):
        worker.wait_for(" ready.")
        yield worker


def test_worker_and_web(migrated: Migrated, worker: Process) -> None:
    """A request is a task with the application's settings, and beat sends its own."""
    url = f"http://localhost:{migrated.port}/hello/you"
    with urllib.request.urlopen(url, timeout=30) as response:
        assert migrated.result(json.load(response)) == "Hello you"
    assert "concurrency: 2 " in worker.output
    worker.wait_for("Sending due task every-second (myapp.hello)")
    worker.wait_for("'Hello beat'")


def test_other_ways_to_a_task(migrated: Migrated, worker: Process) -> None:
    """A retry, a task of another package, and a request that is the thread's."""
    defer = "print(request.defer_task({}).id)"
    twice = migrated.python(f"import myapp\n{defer.format('myapp.try_twice')}")
    assert migrated.result(twice) == "1"
    shared = migrated.python(f"import package\n{defer.format(repr('package.task'))}")
    assert migrated.result(shared) == "shared"
    model = "from myapp import hello\nimport pyramid_tasks\n"
    model += "from pyramid.threadlocal import get_current_request\n"
    (line,) = re.findall(r"`(pyramid_tasks\.defer_task\(.*\))`", PAGE.text)
    assert migrated.result(migrated.python(f"{model}print({line}.id)")) == "Hello you"


def test_message_from_before(migrated: Migrated, worker: Process) -> None:
    """What plain Celery has put into the queue runs, with the request that is new."""
    plain = Celery("before", set_as_current=False)
    plain.conf.broker_url = migrated.broker["broker_url"]
    plain.conf.broker_transport_options = migrated.prefix
    with plain:
        sent = plain.send_task("myapp.hello", ["queue"])
        assert migrated.result(sent.id) == "Hello queue"


def test_what_the_ini_says(migrated: Migrated) -> None:
    """Schedules of each type and the route are read, and there is no mistake."""
    assert migrated.run("ptasks", "--check", "development.ini") == "No problems found."
    schedule = migrated.run("ptasks", "--schedule", "development.ini")
    when = {"nightly": r"0 3 \* \* \*", "every-second": "1 s", "hourly": "3600 s"}
    for name, text in when.items():
        line = rf"^{name} +myapp\.\w+ +{text} "
        assert re.search(line, schedule, re.MULTILINE), schedule
    tasks = migrated.run("ptasks", "development.ini")
    assert re.search(r"^myapp\.try_twice .* slow ", tasks, re.MULTILINE), tasks


def test_what_the_ini_should_not_have(migrated: Migrated) -> None:
    """``ptasks --check`` finds the line that is not read any more."""
    text = migrated.ini.read_text()
    migrated.ini.write_text(
        text.replace("[celery]\n", "[celery]\nUSE_CELERYCONFIG=1\n")
    )
    check = ("ptasks", "--check", "development.ini")
    done = run(*check, cwd=migrated.folder, **migrated.env)
    assert done.returncode == 1
    assert "USE_CELERYCONFIG is not a setting" in done.stdout


def test_web_process(migrated: Migrated) -> None:
    """It knows no broker without the new line. A function has no ``delay``."""
    said = migrated.python(
        "import myapp, package\n"
        "from pyramid_tasks.registry import get_tasks\n"
        "print(myapp.hello(request, 'you'), hasattr(myapp.hello, 'delay'))\n"
        "print(package.task.app.conf.broker_url)\n"
        "print(get_tasks(request.registry).app.conf.broker_url)"
    )
    broker = migrated.broker["broker_url"]
    assert said.splitlines() == ["Hello you False", "None", broker]
    line = "pyramid_tasks.config_uri = %(__file__)s\n"
    migrated.ini.write_text(migrated.ini.read_text().replace(line, ""))
    assert migrated.run(migrated.folder / "lines.py", fresh=False).endswith(
        "None\nNone"
    )


# The 0.4 line

DEFER = """
import sys

from myproject.celery import configure, start_add
from pyramid.scripting import prepare

config = configure()
config.make_celery_app()
request = prepare(registry=config.registry)["request"]
request.tm.begin()
print(start_add(request).id)
getattr(request.tm, sys.argv[1])()
print(start_add(request).id)  # which no transaction is about
"""


@pytest.mark.parametrize(
    ("include", "end", "state"),
    [
        ("pyramid_tasks.transaction", "abort", "SUCCESS"),
        ("pyramid_tasks.contrib.pyramid_tm", "abort", "PENDING"),
        ("pyramid_tasks.contrib.pyramid_tm", "commit", "SUCCESS"),
    ],
)
def test_old_line(
    tmp_path: Path, redis_queue: dict[str, str], include: str, end: str, state: str
) -> None:
    """It runs; what becomes of a task whose transaction aborts is up to the include."""
    settings = {f"celery.{key}": value for key, value in redis_queue.items()}
    pattern = r"(?<=settings = )\{\n.*?\}"
    code, number = re.subn(pattern, repr(settings), OLD_LINE, flags=re.DOTALL)
    assert number == 1
    assert code.count('"pyramid_tasks.transaction"') == 1
    assert f'`config.include("{include}")`' in PAGE.text
    (tmp_path / "myproject").mkdir()
    code = code.replace("pyramid_tasks.transaction", include)
    (tmp_path / "myproject" / "celery.py").write_text(code)
    (tmp_path / "defer.py").write_text(DEFER)
    env = {"PYTHONPATH": str(tmp_path)}
    deferred = run(tmp_path / "defer.py", end, cwd=tmp_path, fresh=False, **env)
    assert deferred.returncode == 0, deferred.stderr
    inside, outside = deferred.stdout.split()
    app = Celery(set_as_current=False, backend=redis_queue["result_backend"])
    option = "result_backend_transport_options"
    prefix = {"global_keyprefix": redis_queue[f"{option}.global_keyprefix"]}
    app.conf[option] = prefix
    command = ("celery", "-A", "myproject", "worker", "--loglevel=INFO")
    # One after the other, so that the second is there when the first was.
    with start(*command, "--concurrency=1", cwd=tmp_path, **env) as worker:
        assert app.AsyncResult(outside).get(timeout=60) == 3
        assert app.AsyncResult(inside).state == state
        assert "running myproject.celery.add" in worker.output
