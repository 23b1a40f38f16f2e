"""``ptasks`` as it is typed: what it lists, and what it finds wrong."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import listedapp
import pytest
from support import (
    APPS,
    BIN,
    Listener,
    as_ini,
    environment,
    free_port,
    ini_form,
    logging_sections,
    measured,
    run,
    serve,
    wait_until,
)

pytestmark = pytest.mark.acceptance

#: Lines of an application with transactions, and one with an outbox.
TM = "pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm\n"
OUTBOX = f"{TM}pyramid_tasks.delivery = outbox\n"

SCHEDULE = """\
[celerybeat:nightly]
task = listedapp.add
schedule = 0 3 * * *
args = [1, 2]

[celeryroute:listedapp.add]
queue = adding
"""


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def write(write_ini):
    """Return a function that writes an ini, of Celery's settings and other lines."""

    def write(use="listedapp:main", *, app="", more="", **settings):
        servers = {"broker_url": "memory://", "result_backend": "cache+memory://"}
        return write_ini(
            f"[app:main]\nuse = call:{use}\n{as_ini(servers | settings)}\n"
            f"pyramid_tasks.config_uri = %(__file__)s\n{app}\n\n{more}\n"
        )

    return write


@pytest.fixture
def ptasks(tmp_path):
    """Return a function that runs the command for the ini."""

    def ptasks(*options, uri="config.ini"):
        return run("ptasks", *options, uri, cwd=tmp_path)

    return ptasks


@pytest.fixture
def check(ptasks):
    """Return a function that gives the lines of a check but the last, their count."""

    def check():
        done = ptasks("--check")
        *lines, last = done.stdout.splitlines()
        assert "Traceback" not in done.stderr
        assert done.returncode == (1 if lines else 0)
        assert int(last.split()[0].replace("No", "0")) == len(lines)
        return lines

    return check


def test_list(write, ptasks):
    """A table like that of proutes has one line for each task."""
    write(more=SCHEDULE)
    done = ptasks()
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


def test_list_as_json(write, ptasks):
    """The same is there as JSON, and nothing but JSON on standard output."""
    write(task_track_started="true", imports="sharedtasks")
    found = {task["name"]: task for task in json.loads(ptasks("--json").stdout)}
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


def test_schedule(write, ptasks):
    """Periodic tasks of directives and of the file are listed with their next run."""
    ini = write(timezone="Europe/Berlin", more=SCHEDULE)
    done = ptasks("--schedule", "--json")
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
    pattern = r"^nightly +listedapp.add +0 3 \* \* \* +20.*config.ini:"
    assert re.search(pattern, ptasks("--schedule").stdout, re.MULTILINE)


def test_forms_of_the_config_uri(write, ptasks):
    """The file is named as for --ini: with a section, and variables in both forms."""
    write(task_default_queue="%(queue)s", more="[celery:emails]\n")
    table = "--format", "name,queue"
    done = ptasks(*table, "config.ini#emails", uri="queue=q1")
    assert re.search(r"^listedapp.add +q1$", done.stdout, re.MULTILINE), done.stderr
    done = ptasks(*table, "-g", "list*", uri="config.ini?queue=q2")
    assert re.search(r"^listedapp.add +q2$", done.stdout, re.MULTILINE), done.stderr
    done = ptasks()
    assert done.returncode == 1
    assert done.stderr.startswith("Error: config.ini: [")
    assert "Traceback" not in done.stderr


def test_error_of_the_application(write, ptasks):
    """An error in the code keeps its traceback; the check counts it as a problem."""
    write("failing:key_error", more="[celery]\nx = 1\n")
    for options in ((), ("--check",)):
        done = ptasks(*options)
        assert done.returncode == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert "KeyError: 'no such setting'" in done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith("config.ini, [celery]: x is not a setting")
    assert second.startswith("config.ini: the application could not be loaded")
    assert last == "2 problems found."


def test_check_finds_nothing(write, check, ptasks, listener):
    """An application without a problem passes, and no server is connected to."""
    write(
        broker_url=f"amqp://localhost:{listener.port}//",
        result_backend=f"db+postgresql+psycopg://localhost:{listener.port}/x",
        more=SCHEDULE,
    )
    assert check() == []
    done = ptasks("--check", "--json")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    for option in "--json", "--schedule":
        assert ptasks(option).returncode == 0
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
    r"config.ini, \[celery:main\]: redbeat_redis_url is a setting of redbeat, which",
    r"config.ini, \[celery:main\]: celery.wor.* prefix is left out.*worker_concurrency",
    r"config.ini, \[celerybeat:unreadable\], task: .*Did you mean 'listedapp.add'\?",
    r"config.ini, \[celerybeat:unreadable\]: schedule '0 3 \* \*' is not a cron",
    r"config.ini, \[celerybeat:unreadable\]: args is not a JSON array",
    r"config.ini, \[celerybeat:unreadable\]: colour is not a key",
    r"config.ini: \[celerybeat:variable\] task uses %\(nothing\)s",
    r"config.ini, \[celerybeat:arguments\], args and kwargs: .*missing",
    r"config.ini, \[celerybeet:section\]: did you mean \[celerybeat:",
    r"config.ini.*\[celeryroute:listedapp.send_mail\] .*Did you mean 'mail'\?",
    r"config.ini, \[celeryroute:listedapp.adds\]: queue is not JSON",
    r"config.ini.*\[celeryroute:listedapp.adds\] .*Did you mean 'listedapp.add'\?",
    r"config.ini, \[app:main\]: celery.result_expires = '1 day' is not a number",
    r"config.ini, \[app:main\]: celery.brokr_url .*mean celery.broker_url\?",
    r"config.ini, \[app:main\]: pyramid_tasks.context = usr .*Did you mean user\?",
    r"config.ini, \[app:main\]: pyramid_tasks.base_url = nowhere is not .*https://ex",
    r"config.ini, \[app:main\]: pyramid_tasks.delivery = later is not one of",
    r"config.ini, \[app:main\]: pyramid_tasks.delivry is .*mean pyramid_tasks.delivery",
    r"config.ini, \[app:main\]: celery.beat_schedule has .*'text' .* is not a cron",
    r"config.ini.*beat_schedule has an entry 'dotted' .*Did you mean 'mail'\?",
    r".*beat_schedule has an entry 'never' that cannot be used: no day is the 31st",
    r"config.ini.*task_routes has a route for 'no\.\*': no task has it",
    r".*listedapp.py:\d+: .* has no name of its own",
    r".*listedapp.py:\d+: .*add\(1, 2\): schedule '99 \* \* \* \*' is not a cron",
    r".*listedapp.py:\d+: No task 'ad' is registered",
    r".*listedapp.py:\d+: .*takes 2 positional arguments but 3",
    r".*listedapp.py:\d+: config.add_fork_safe\(\) takes",
    r".*listedapp.py:\d+: TASK is a reserved task deriver name",
]


def test_check_finds_everything_at_once(write, check, ptasks):
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
    write("listedapp:unnamed", app=app, more=WRONG)
    found = check()
    for expected in PROBLEMS:
        matches = [line for line in found if re.match(expected, line)]
        assert len(matches) == 1, (expected, found)
    assert len(found) == len(PROBLEMS), found

    done = ptasks("--check", "--json", "--ignore", "redbeat_*")
    assert done.returncode == 1
    as_json = json.loads(done.stdout)
    assert len(as_json) == len(PROBLEMS) - 1
    message = "worker_hijack_root_logger = 'maybe' is not a boolean (true or false)"
    where = "config.ini, [celery:main]"
    assert {"kind": "SettingError", "message": message, "where": where} in as_json


TABLE = "listedapp:with_table"
SCHEMA = f"{OUTBOX}pyramid_tasks.outbox_schema = "

#: The ini, and what its problems say, in order.
CHECKS = [
    ({"broker_url": ""}, ["names no broker"]),
    ({"broker_url": "redsi://"}, ["The broker redsi://"]),
    ({"result_backend": "redsi://"}, ["The result backend redsi://"]),
    ({"result_backend": ""}, ["celery.result_backend is not set"]),
    # Tasks that ignore their results need no place for them.
    ({"result_backend": "", "task_ignore_result": "true"}, []),
    # What Celery is to import, and cannot, is found beside the other problems.
    (
        {"imports": "no_such_module", "x": "1"},
        ["celery.x is not", "imports names a module that is not there: 'no_such"],
    ),
    # What it can import has tasks, too.
    ({"imports": "sharedtasks", "task_routes": '{"shared.task": "mails"}'}, []),
    # An application that ends the process is a problem, whatever its status is.
    ({"use": "listedapp:exits"}, ["ended the process"]),
    (
        {"task_create_missing_queues": "false", "task_routes": '{"mail": "mails"}'},
        ["^config.ini: celery.task_queues lacks the queue that mail is "],
    ),
    # With an outbox, an application has a session, and declares its table.
    ({"app": OUTBOX}, ["is no request.dbsession", r"outbox_table\(Base.metadata\)"]),
    (
        {"use": "listedapp:with_inbox", "app": OUTBOX},
        ["= outbox, but the application", "a task that defers", "a task that sends"],
    ),
    ({"use": TABLE, "app": OUTBOX}, []),
    ({"use": TABLE, "app": SCHEMA}, []),
    ({"use": TABLE, "app": f"{SCHEMA}a b"}, []),
    (
        {"use": TABLE, "app": f"{SCHEMA}a"},
        ["outbox_schema = a, but the application declares .* in no schema"],
    ),
    (
        {"use": TABLE, "app": f"{SCHEMA}[1]"},
        [r"outbox_schema = \[1\] is not a schema or a list"],
    ),
]


@pytest.mark.parametrize(("parts", "expected"), CHECKS)
def test_check(parts, expected, write, check):
    """The check finds this, and nothing else."""
    if "app" in parts:
        pytest.importorskip("pyramid_tm")
        pytest.importorskip("sqlalchemy")
    write(**parts)
    found = check()
    assert len(found) == len(expected), found
    assert all(map(re.search, expected, found)), found


INBOX = [
    r"The task defers has an inbox, .*outbox_table\(Base.metadata\)",
    r"pyramid_tasks.delivery = commit for a task that defers defers: .* is lost if",
    r"pyramid_tasks.delivery = immediate for a task that defers defers: .* is sent al",
    r"pyramid_tasks.delivery = immediate for a task that sends defers",
    r"inbox_keep = 3600 is less than the visibility_timeout of the broker \(3605 s\)",
    r"pyramid_tasks.inbox_keep = 3600 is less than the expires of the task sends \(36",
    r"pyramid_tasks.inbox_keep = 3600 is less than the countdown of the schedule .*\(7",
]


def test_inbox(write, check, ptasks):
    """Tasks with an inbox are listed; what keeps them from effects once is found."""
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sqlalchemy")
    keep = "pyramid_tasks.inbox_keep = 3600"
    unacknowledged = 'celery.broker_transport_options = {"visibility_timeout": 3605}'
    write("listedapp:with_inbox", app=f"{TM}{keep}\n{unacknowledged}")
    found = check()
    assert len(found) == len(INBOX), found
    for pattern, line in zip(INBOX, found, strict=True):
        assert re.search(pattern, line), line
    listed = ptasks("-g", "defers").stdout
    assert "acks_late=True, inbox=True, reject_on_worker_lost=True" in listed
    write("listedapp:with_inbox", app=f"{TM}pyramid_tasks.max_deliveries = none")
    assert "pyramid_tasks.max_deliveries = none is not a number" in check()[0]


def test_outbox_settings(write, check, tmp_path):
    """A number of the outbox that is none is found without using the outbox."""
    pytest.importorskip("pyramid_tm")
    write(app=f"{TM}pyramid_tasks.outbox_lease = 5 s")
    (found,) = check()
    assert found.endswith(": pyramid_tasks.outbox_lease = 5 s is not a number.")
    done = run(*ini_form("config.ini", "report"), cwd=tmp_path)
    assert done.returncode == 1
    assert f"Error: {found}" in done.stderr
    assert "Traceback" not in done.stderr


def test_outbox_without_sqlalchemy(write, tmp_path):
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
    write(app=OUTBOX)
    path = f"{tmp_path}:{APPS}"
    check = ("ptasks", "--check", "config.ini")
    for command in check, ini_form("config.ini", "report"):
        done = run(*command, cwd=tmp_path, fresh=True, PYTHONPATH=path)
        assert done.returncode == 1
        assert "outbox needs SQLAlchemy: install" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "unbuffered"), [("--json", ""), ("--json", "1"), ("--check", "")]
)
def test_reader_that_goes_away(option, unbuffered, write, tmp_path):
    """A closed pipe, as in ``ptasks | head``, is no error of the application.

    Nor is it one for Python, which writes what it still has at its end.
    """
    write()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [BIN / "ptasks", option, "config.ini"],
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED=unbuffered, **measured()),
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_help(tmp_path):
    """The help says what the command is for, and names its options."""
    done = run("ptasks", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ptasks [-h]")
    options = "schedule check connect ignore json glob format"
    for option in options.split():
        assert f"--{option}" in done.stdout
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
        (("--connect", "config.ini"), "--connect goes with --check"),
    ],
)
def test_wrong_usage(arguments, expected, tmp_path):
    """What is typed wrongly is said so, with status 2."""
    done = run("ptasks", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_logging_of_the_file(write, ptasks, tmp_path):
    """Logging is set up from the file, as the scripts of Pyramid do."""
    logging = logging_sections().replace("StreamHandler", "FileHandler")
    logging = logging.replace("(sys.stderr,)", "('ptasks.log',)")
    write(brokr_url="x", more=logging)
    assert ptasks().returncode == 0
    assert "Did you mean celery.broker_url?" in (tmp_path / "ptasks.log").read_text()


def test_debug_toolbar(write, tmp_path):
    """The introspection tab of the debug toolbar leads from a task to what it has."""
    pytest.importorskip("pyramid_debugtoolbar")
    port = free_port()
    server = f"[server:main]\nuse = egg:waitress#main\nlisten = localhost:{port}\n"
    write(app="pyramid.includes = pyramid_debugtoolbar", more=server)
    with serve("config.ini", port, cwd=tmp_path) as url:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, timeout=30)

        def page():
            with urllib.request.urlopen(f"{url}/_debug_toolbar/", timeout=30) as answer:
                return answer.read().decode()

        text = wait_until(lambda: "<h4>Tasks</h4>" in (found := page()) and found)
    for category in "Periodic tasks", "Task deliveries", "Task derivers", "Tasks":
        assert f"<h4>{category}</h4>" in text
    anchors = dict(re.findall(r'<a name="([^"]+)">([^<]+)</a>', text))
    _, _, task = text.partition(">task mail</a></th>")
    task, _, _ = task.partition("</table>")
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', task)
    titles = ["task deriver logged", "task deriver timed", "periodic task night"]
    assert [title for _, title in links] == titles
    assert all(anchors[name] == title for name, title in links)
    assert f"of file {listedapp.__file__}" in task
