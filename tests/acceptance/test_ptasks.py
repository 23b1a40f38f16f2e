"""``ptasks`` as it is typed: what it lists, and what it finds wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import listedapp
import pytest
from support import (
    BIN,
    Listener,
    environment,
    free_port,
    run,
    serve,
    wait_until,
)

pytestmark = pytest.mark.acceptance

APP = """\
[app:main]
use = call:listedapp:{factory}
celery.broker_url = {broker}
celery.result_backend = {backend}
pyramid_tasks.config_uri = %(__file__)s
{app}

{more}
"""

SCHEDULE = """\
[celerybeat:nightly]
task = listedapp.add
schedule = 0 3 * * *
args = [1, 2]

[celeryroute:listedapp.add]
queue = adding
"""


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def write(write_ini: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes an ini for an application of ``listedapp``."""

    def write(
        factory: str = "main",
        *,
        broker: str = "memory://",
        backend: str = "cache+memory://",
        app: str = "",
        more: str = "",
    ) -> Path:
        text = APP.format(
            factory=factory, broker=broker, backend=backend, app=app, more=more
        )
        return write_ini(text)

    return write


def problems_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of a check but the last, which counts them."""
    *lines, last = done.stdout.splitlines()
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if lines else 0)
    assert int(last.split()[0].replace("No", "0")) == len(lines)
    return lines


def test_list(write: Callable[..., Path], tmp_path: Path) -> None:
    """A table like that of proutes has one line for each task."""
    write(more=SCHEDULE)
    done = run("ptasks", "config.ini", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    titles, dashes, *lines = (re.split(" {4,}", x) for x in done.stdout.splitlines())
    assert titles == ["Name", "Function", "Queue", "Derivers", "Options", "Registered"]
    assert dashes == ["-" * len(title) for title in titles]
    assert [line[0] for line in lines] == ["listedapp.add", "mail"]
    assert lines[0][1:3] == ["listedapp.add", "adding"]
    assert lines[1][1:5] == [
        "listedapp.send_mail",
        "celery",
        "logged, timed",
        "acks_late=True, autoretry_for=(OSError), bind=True, color='red'",
    ]
    file, line = lines[1][5].rsplit(":", 1)
    assert Path(file) == Path(listedapp.__file__)
    found = Path(file).read_text().splitlines()[int(line) - 1]
    assert "mail" in found  # of the decorator


def test_list_as_json(write: Callable[..., Path], tmp_path: Path) -> None:
    """The same is there as JSON, and nothing but JSON on standard output."""
    app = "celery.task_track_started = true\ncelery.imports = sharedtasks"
    write(app=app)
    done = run("ptasks", "config.ini", "--json", cwd=tmp_path)
    found = {task["name"]: task for task in json.loads(done.stdout)}
    mail = found["mail"]
    assert mail.pop("registered")["file"] == listedapp.__file__
    assert mail == {
        "name": "mail",
        "function": "listedapp.send_mail",
        "queue": "celery",
        "derivers": ["logged", "timed"],
        "options": {
            "acks_late": True,
            "autoretry_for": ["OSError"],
            "bind": True,
            "color": "red",
            "track_started": True,
        },
    }
    shared = found["shared.task"]
    assert (shared["function"], shared["registered"]) == ("sharedtasks.task", None)


def test_schedule(write: Callable[..., Path], tmp_path: Path) -> None:
    """Periodic tasks of directives and of the file are listed with their next run."""
    ini = write(app="celery.timezone = Europe/Berlin", more=SCHEDULE)
    done = run("ptasks", "--schedule", "--json", "config.ini", cwd=tmp_path)
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert list(found) == ["night", "nightly", "often"]
    registered = found["nightly"]["registered"]
    assert Path(registered["file"]).name == ini.name
    header = ini.read_text().splitlines()[registered["line"] - 1]
    assert header == "[celerybeat:nightly]"
    assert found["night"]["registered"]["file"] == listedapp.__file__
    assert found["often"]["schedule"] == "30 s"
    assert found["often"]["kwargs"] == {"y": 2}
    assert found["often"]["options"] == {"expires": 10}
    assert found["night"]["schedule"] == found["nightly"]["schedule"] == "0 3 * * *"
    run_at = datetime.fromisoformat(found["nightly"]["next_run"])
    assert (run_at.hour, run_at.minute, run_at.second) == (3, 0, 0)
    assert run_at > datetime.now(UTC)
    table = run("ptasks", "--schedule", "config.ini", cwd=tmp_path).stdout
    assert re.search(
        r"^nightly +listedapp.add +0 3 \* \* \* +20.*config.ini:", table, re.MULTILINE
    )


def test_forms_of_the_config_uri(write: Callable[..., Path], tmp_path: Path) -> None:
    """The file is named as for --ini: with a section, and variables in both forms."""
    write(app="celery.task_default_queue = %(queue)s", more="[celery:emails]\n")
    table = "--format", "name,queue"
    done = run("ptasks", *table, "config.ini#emails", "queue=q1", cwd=tmp_path)
    assert re.search(r"^listedapp.add +q1$", done.stdout, re.MULTILINE), done.stderr
    done = run("ptasks", *table, "config.ini?queue=q2", "-g", "list*", cwd=tmp_path)
    assert re.search(r"^listedapp.add +q2$", done.stdout, re.MULTILINE), done.stderr
    done = run("ptasks", "config.ini", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: config.ini: [")
    assert "Traceback" not in done.stderr


def test_error_of_the_application(tmp_path: Path) -> None:
    """An error in the code keeps its traceback; the check counts it as a problem."""
    text = APP.replace("listedapp:{factory}", "brokenapp:key_error")
    (tmp_path / "config.ini").write_text(
        text.format(broker="memory://", backend="", app="", more="[celery]\nx = 1\n")
    )
    for options in ((), ("--check",)):
        done = run("ptasks", *options, "config.ini", cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert "KeyError: 'no.such.setting'" in done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith("config.ini, [celery]: x is not a setting")
    assert second.startswith("config.ini: the application could not be loaded")
    assert last == "2 problems found."


def test_imports_that_fail(write: Callable[..., Path], tmp_path: Path) -> None:
    """What Celery is to import, and cannot, is found beside the other problems."""
    write(app="celery.imports = no_such_module\ncelery.x = 1")
    found = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert len(found) == 2
    assert "celery.imports names a module that is not there: 'no_such" in found[1]


def test_application_that_exits(write: Callable[..., Path], tmp_path: Path) -> None:
    """An application that ends the process is a problem, whatever its status is."""
    write("exits")
    done = run("ptasks", "--check", "config.ini", cwd=tmp_path)
    assert "ended the process" in problems_of(done)[0]


def test_check_finds_nothing(
    write: Callable[..., Path], listener: Listener, tmp_path: Path
) -> None:
    """An application without a problem passes, and no server is connected to."""
    write(
        broker=f"amqp://localhost:{listener.port}//",
        backend=f"db+postgresql+psycopg://localhost:{listener.port}/x",
        more=SCHEDULE,
    )
    done = run("ptasks", "--check", "config.ini", cwd=tmp_path)
    assert problems_of(done) == []
    done = run("ptasks", "--check", "config.ini", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n")
    for option in "--json", "--schedule":
        assert run("ptasks", option, "config.ini", cwd=tmp_path).returncode == 0
    assert listener.connections == 0


WRONG = """\
[celery:main]
workr_concurrency = 2
worker_hijack_root_logger = maybe
redbeat_redis_url = redis://
celery.worker_concurrency = 2

[celerybeat:unreadable]
task = listedapp.ad
schedule = 0 3 * *
args = [1
colour = red

[celerybeat:variable]
task = %(nothing)s

[celerybeat:arguments]
task = listedapp.add
schedule = 3

[celerybeet:section]
[celeryroute:listedapp.send_mail]
queue = a
[celeryroute:listedapp.adds]
queue = [
"""

#: What each of the problems says, and where.
PROBLEMS = [
    r"config.ini, \[celery:main\]: workr_concurrency .*mean worker_concurrency\?",
    r"config.ini, \[celery:main\]: worker_hijack_root_logger = 'maybe'",
    r"config.ini, \[celery:main\]: redbeat_redis_url is not",
    r"config.ini, \[celery:main\]: celery.wor.* prefix is left out.*worker_concurrency",
    r"config.ini, \[celerybeat:unreadable\], task: .*Did you mean 'listedapp.add'\?",
    r"config.ini, \[celerybeat:unreadable\]: schedule '0 3 \* \*' is not a cron",
    r"config.ini, \[celerybeat:unreadable\]: args is not a JSON array",
    r"config.ini, \[celerybeat:unreadable\]: colour is not a key",
    r"config.ini: \[celerybeat:variable\] task uses %\(nothing\)s",
    r"config.ini, \[celerybeat:arguments\], args and kwargs: .*missing",
    r"config.ini, \[celerybeet:section\]: did you mean \[celerybeat:",
    r"\[celeryroute:listedapp.send_mail\] .*Did you mean 'mail'\?",
    r"config.ini, \[celeryroute:listedapp.adds\]: queue is not JSON",
    r"\[celeryroute:listedapp.adds\] .*Did you mean 'listedapp.add'\?",
    r"config.ini, \[app:main\]: celery.result_expires = '1 day' is not a number",
    r"config.ini, \[app:main\]: celery.brokr_url .*mean celery.broker_url\?",
    r"config.ini, \[app:main\]: pyramid_tasks.context = usr .*Did you mean user\?",
    r"config.ini, \[app:main\]: pyramid_tasks.base_url = nowhere is not",
    r"config.ini, \[app:main\]: pyramid_tasks.delivery = later is not one of",
    r"config.ini, \[app:main\]: pyramid_tasks.delivry is .*mean pyramid_tasks.delivery",
    r"config.ini, \[app:main\]: celery.beat_schedule has .*'text' .* is not a cron",
    r"beat_schedule has an entry 'dotted' .*Did you mean 'mail'\?",
    r"task_routes has a route for 'no\.\*': no task has it",
    r".*listedapp.py:\d+: .* has no name of its own",
    r".*listedapp.py:\d+: schedule '99 \* \* \* \*' is not a cron",
    r".*listedapp.py:\d+: No task 'ad' is registered",
    r".*listedapp.py:\d+: .*takes 2 positional arguments but 3",
    r".*listedapp.py:\d+: config.add_fork_safe\(\) takes",
    r".*listedapp.py:\d+: TASK is a reserved task deriver name",
]


def test_check_finds_everything_at_once(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    """Every problem is reported, once, with where it is; the exit status is 1."""
    schedule = {
        "text": {"task": "listedapp.add", "schedule": "* * * *"},
        "dotted": {"task": "listedapp.send_mail", "schedule": 3},
    }
    settings = {
        "celery.result_expires": "1 day",
        "celery.brokr_url": "memory://",
        "celery.beat_schedule": json.dumps(schedule),
        "celery.task_routes": '{"no.*": "x"}',
        "pyramid_tasks.context": "host usr",
        "pyramid_tasks.base_url": "nowhere",
        "pyramid_tasks.delivery": "later",
        "pyramid_tasks.delivry": "outbox",
    }
    app = "\n".join(f"{key} = {value}" for key, value in settings.items())
    write("unnamed", app=app, more=WRONG)
    done = run("ptasks", "--check", "config.ini", cwd=tmp_path)
    found = problems_of(done)
    for expected in PROBLEMS:
        matches = [line for line in found if re.match(expected, line)]
        assert len(matches) == 1, (expected, found)
    assert len(found) == len(PROBLEMS), found

    command = "ptasks", "--check", "--json", "--ignore", "redbeat_*", "config.ini"
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1
    as_json = json.loads(done.stdout)
    assert len(as_json) == len(PROBLEMS) - 1
    assert {
        "kind": "SettingError",
        "message": "worker_hijack_root_logger = 'maybe' "
        "is not a boolean (true or false)",
        "where": "config.ini, [celery:main]",
    } in as_json


@pytest.mark.parametrize(
    ("broker", "backend", "expected"),
    [
        ("", "cache+memory://", "names no broker"),
        ("redsi://", "cache+memory://", "The broker redsi://"),
        ("memory://", "redsi://", "The result backend redsi://"),
        ("memory://", "", "celery.result_backend is not set"),
    ],
)
def test_check_of_servers(
    broker: str,
    backend: str,
    expected: str,
    write: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A broker or result backend that is missing, or unknown to Celery, is found."""
    write(broker=broker, backend=backend)
    (found,) = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert expected in found


def test_no_result_backend_and_no_results(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    """Tasks that ignore their results need no place for them."""
    write(backend="", app="celery.task_ignore_result = true")
    assert problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path)) == []


@pytest.mark.parametrize("factory", ["main", "with_table"])
def test_outbox(factory: str, write: Callable[..., Path], tmp_path: Path) -> None:
    """With delivery by outbox, the application declares its table."""
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sqlalchemy")
    includes = "pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm\n"
    write(factory, app=f"{includes}pyramid_tasks.delivery = outbox")
    found = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert len(found) == (factory == "main")
    assert all("outbox_table(Base.metadata)" in line for line in found)


INBOX = [
    r"The task defers has an inbox, .*outbox_table\(Base.metadata\)",
    r"pyramid_tasks.delivery = commit for a task that defers defers: .* is lost if",
    r"pyramid_tasks.delivery = immediate for a task that defers defers: .* is sent al",
    r"pyramid_tasks.delivery = immediate for a task that sends defers",
    r"pyramid_tasks.inbox_keep = 3600 is less than the expires of the task sends \(36",
    r"pyramid_tasks.inbox_keep = 3600 is less than the countdown of the schedule .*\(7",
]


def test_inbox(write: Callable[..., Path], tmp_path: Path) -> None:
    """Tasks with an inbox are listed; what keeps them from effects once is found."""
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sqlalchemy")
    includes = "pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm\n"
    write("with_inbox", app=f"{includes}pyramid_tasks.inbox_keep = 3600")
    found = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert len(found) == len(INBOX), found
    for pattern, line in zip(INBOX, found, strict=True):
        assert re.match(pattern, line), line
    listed = run("ptasks", "config.ini", "-g", "defers", cwd=tmp_path).stdout
    assert "acks_late=True, inbox=True, reject_on_worker_lost=True" in listed
    write("with_inbox", app=f"{includes}pyramid_tasks.max_deliveries = none")
    (line,) = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))[:1]
    assert "pyramid_tasks.max_deliveries = none is not a number" in line


def test_outbox_settings(write: Callable[..., Path], tmp_path: Path) -> None:
    """A number of the outbox that is none is found without using the outbox."""
    pytest.importorskip("pyramid_tm")
    includes = "pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm\n"
    write(app=f"{includes}pyramid_tasks.outbox_lease = 5 s")
    (found,) = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert found.endswith(": pyramid_tasks.outbox_lease = 5 s is not a number.")
    command = "celery", "-A", "pyramid_tasks.loaders", "--ini", "config.ini", "report"
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert f"Error: {found}" in done.stderr
    assert "Traceback" not in done.stderr


def test_outbox_without_sqlalchemy(write: Callable[..., Path], tmp_path: Path) -> None:
    """With delivery by outbox and without SQLAlchemy, a sentence says what to do."""
    pytest.importorskip("pyramid_tm")
    # A module that hides the package from those who ask for it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = (\n"
        "    lambda name, *args: None if name == 'sqlalchemy' else "
        "find_spec(name, *args)\n"
        ")\n"
    )
    includes = "pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm\n"
    write(app=f"{includes}pyramid_tasks.delivery = outbox")
    path = f"{tmp_path}:{Path(listedapp.__file__).parent}"
    for command in (
        ("ptasks", "--check", "config.ini"),
        ("celery", "-A", "pyramid_tasks", "--ini", "config.ini", "report"),
    ):
        done = run(*command, cwd=tmp_path, fresh=True, PYTHONPATH=path)
        assert done.returncode == 1
        assert "outbox needs SQLAlchemy: install" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_queues(write: Callable[..., Path], tmp_path: Path) -> None:
    """A task whose queue is missing from those allowed is found."""
    app = (
        "celery.task_create_missing_queues = false\n"
        'celery.task_routes = {"mail": {"queue": "mails"}}'
    )
    write(app=app)
    (found,) = problems_of(run("ptasks", "--check", "config.ini", cwd=tmp_path))
    assert found.startswith("task_queues lacks the queue that mail is sent to")


@pytest.mark.parametrize("option", ["--json", "--check"])
def test_reader_that_goes_away(
    option: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    """A closed pipe, as in ``ptasks | head``, is no error of the application."""
    write()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [BIN / "ptasks", option, "config.ini"],
            cwd=tmp_path,
            env=environment(),
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_help(tmp_path: Path) -> None:
    """The help says what the command is for, and names its options."""
    done = run("ptasks", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ptasks [-h]")
    for option in "--schedule", "--check", "--ignore", "--json", "--glob", "--format":
        assert option in done.stdout
    assert "http_port=%(http_port)s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Requires a config file argument"),
        (("config.ini", "http_port"), "'http_port' invalid"),
        (("--format", "nme", "config.ini"), "no column nme"),
        (("--check", "--schedule", "config.ini"), "not allowed with"),
        (("--check", "--glob", "x", "config.ini"), "do not go with --check"),
        (("--check", "--format", "name", "config.ini"), "do not go with --check"),
        (("--ignore", "x", "config.ini"), "--ignore goes with --check"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    """What is typed wrongly is said so, with status 2."""
    done = run("ptasks", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_logging_of_the_file(write: Callable[..., Path], tmp_path: Path) -> None:
    """Logging is set up from the file, as the scripts of Pyramid do."""
    logging = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys =
[logger_root]
level = WARN
handlers = file
[handler_file]
class = FileHandler
args = ("ptasks.log",)
"""
    write(app="celery.brokr_url = x", more=logging)
    assert run("ptasks", "config.ini", cwd=tmp_path).returncode == 0
    assert "Did you mean celery.broker_url?" in (tmp_path / "ptasks.log").read_text()


def test_debug_toolbar(write: Callable[..., Path], tmp_path: Path) -> None:
    """The introspection tab of the debug toolbar leads from a task to what it has."""
    pytest.importorskip("pyramid_debugtoolbar")
    import urllib.error
    import urllib.request

    port = free_port()
    server = f"[server:main]\nuse = egg:waitress#main\nlisten = localhost:{port}\n"
    write(app="pyramid.includes = pyramid_debugtoolbar", more=server)
    with serve("config.ini", port, cwd=tmp_path) as url:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, timeout=30)

        def page() -> str:
            with urllib.request.urlopen(f"{url}/_debug_toolbar/", timeout=30) as answer:
                return str(answer.read().decode())

        text = wait_until(lambda: "<h4>Tasks</h4>" in (found := page()) and found)
    for category in "Periodic tasks", "Task deliveries", "Task derivers", "Tasks":
        assert f"<h4>{category}</h4>" in text
    anchors = dict(re.findall(r'<a name="([^"]+)">([^<]+)</a>', text))
    _, _, task = text.partition(">task mail</a></th>")
    task, _, _ = task.partition("</table>")
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', task)
    assert [title for _, title in links] == [
        "task deriver logged",
        "task deriver timed",
        "periodic task night",
    ]
    assert all(anchors[name] == title for name, title in links)
    assert f"of file {listedapp.__file__}" in task
