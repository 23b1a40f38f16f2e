"""Every command of ``celery`` runs with the application of the ini."""

import re
import shlex

import pytest
from announce import LOADED
from support import (
    QUICK,
    UNMEASURED,
    example_config,
    free_port,
    ini_form,
    run,
    start,
    start_worker,
    unique,
    wait_until,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.commands]

UUID = r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"

#: A command, and what is in its output only when it reached the application, its
#: worker or its broker. ``{queue}`` is the queue that the ini names, ``{idle}`` one
#: with a message that nobody takes, ``{task}`` a task that has run.
COMMANDS = {
    "inspect ping": ("live@", "pong", "1 node online."),
    "inspect registered": ("live@", "exampleapp.add"),
    "control enable_events": ("live@", "task events"),
    "status": ("live@", "OK", "1 node online."),
    "call exampleapp.add --args=[2,3]": (UUID,),
    "result {task}": (r"^42$",),
    "purge -f -Q {idle}": ("Purged 1 message from 1 known task queue",),
    "list bindings": (r"^{queue} +{queue} +{queue}$",),
    "shell --python": ("exampleapp.add in threads None",),
    "report": ("PyramidLoader", "worker_pool: 'threads'"),
    "graph bootsteps": ("digraph",),
    "migrate --help": ("SOURCE DESTINATION",),
    "upgrade settings old_settings.py": ("Changes to your setting have been made!",),
    "logtool stats worker.log": ("Task total: 1", "exampleapp.add: 1"),
}

#: Those that run until they are stopped, and what they say once they are up.
RUNNING = {
    "worker --pool=solo -n second@%h -l INFO": (r"\. exampleapp\.add", r" ready\."),
    "beat -l INFO": ("redis://", "beat: Starting"),
    "events --dump": ("starting capture", "live@.* heartbeat"),
    "flower --address=127.0.0.1 --port={port}": ("exampleapp.add", "Connected to"),
}

#: What the commands read.
OLD_SETTINGS = 'CELERY_RESULT_BACKEND = "redis://"\n'
WORKER_LOG = """\
[2026-01-01 00:00:00,000: INFO/MainProcess] Received task: exampleapp.add[1-2] eta:[]
[2026-01-01 00:00:00,001: INFO/MainProcess] Task exampleapp.add[1-2] succeeded in 0s: 5
"""
STDIN = "print(add.name, 'in', app.conf.worker_pool, app.current_task)\n"


@pytest.fixture(scope="module")
def ini(tmp_path_factory, redis_broker):
    """Return an ini on Redis, with a worker that is up."""
    folder = tmp_path_factory.mktemp("commands")
    ini = folder / "config.ini"
    app = "pyramid.includes = announce"
    ini.write_text(example_config(redis_broker, app=app, worker="worker_pool=threads"))
    options = ("-n", "live@%h", "-E", "--without-mingle", "--heartbeat-interval=1")
    with start_worker(ini, *options, cwd=folder) as worker:
        yield ini
        assert worker.stop() == 0


def call(ini, *options):
    """Queue ``add(40, 2)`` and return its id."""
    command = ini_form(ini, "call", "exampleapp.add", "--args=[40,2]")
    called = run(*command, *options, cwd=ini.parent)
    assert called.returncode == 0, called.stderr
    return called.stdout.strip()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, redis_broker, ini, tmp_path, after):
    """The command loads the application once, and does its work with it."""
    names = {"queue": redis_broker["task_default_queue"]}
    if "{task}" in line:
        names["task"] = call(ini)
    if "{idle}" in line:
        names["idle"] = f"{names['queue']}_{unique()}"
        call(ini, f"--queue={names['idle']}")
    (tmp_path / "old_settings.py").write_text(OLD_SETTINGS)
    (tmp_path / "worker.log").write_text(WORKER_LOG)
    command = ini_form(ini, *shlex.split(line.format(**names)), after=after)
    done = run(*command, cwd=tmp_path, stdin=STDIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(LOADED) == 1
    for expected in COMMANDS[line]:
        pattern = expected.replace("{queue}", names["queue"])
        assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", RUNNING)
def test_command_that_runs_until_stopped(line, ini, tmp_path, after):
    """The command comes up with the application, and ends when it is asked to."""
    command = ini_form(ini, *shlex.split(line.format(port=free_port())), after=after)
    with start(*command, cwd=tmp_path) as process:
        for expected in RUNNING[line]:
            process.wait_until(
                lambda expected=expected: re.search(expected, process.output), expected
            )
        assert process.popen.poll() is None
        assert process.output.count(LOADED) == 1
        process.stop()


@pytest.mark.parametrize("line", ["list bindings", "graph bootsteps"])
def test_ini_after_the_command_of_a_group(line, ini, tmp_path):
    """``--ini`` can stand after both words of such a command, and ``-A`` be missing."""
    command = shlex.split(f"celery -A pyramid_tasks.loaders {line}")
    done = run("celery", *line.split(), "--ini", ini, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(LOADED) == 1
    without = run(*command, cwd=tmp_path)
    assert without.returncode == 2
    assert without.stderr.startswith("Error: No configuration file: pass --ini")


#: How nodes are started and stopped; `multi` wants --ini=... with the equals sign.
MULTI = {
    "before": "celery -A pyramid_tasks.loaders --ini=config.ini multi {}",
    "after": "celery multi {} -A pyramid_tasks.loaders --ini=config.ini",
    "middle": "celery -A pyramid_tasks.loaders multi {} --ini=config.ini",
    "environment": "celery -A pyramid_tasks.loaders multi {}",
    "environment, -A last": "celery multi {} -A pyramid_tasks.loaders",
}


def multi(form, action, ini):
    command = shlex.split(MULTI[form].format(action))
    files = ("--pidfile=%n.pid", "--logfile=%n.log", "--loglevel=INFO", "--pool=solo")
    done = run(*command, *files, *QUICK, cwd=ini.parent, **UNMEASURED, **environ(form))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def environ(form):
    return {"CELERY_INI": "config.ini"} if form.startswith("environment") else {}


def test_multi(ini):
    """``celery multi`` starts a worker of the application, and stops it."""
    log, pid = ini.parent / "w1.log", ini.parent / "w1.pid"
    multi("before", "start w1", ini)
    wait_until(
        lambda: log.exists() and " ready." in log.read_text(),
        what=lambda: "\n".join(map(str, ini.parent.iterdir())),
    )
    assert "Connected to redis://" in log.read_text()
    assert pid.exists()
    multi("before", "stopwait w1", ini)
    assert not pid.exists()


@pytest.mark.parametrize("form", [*MULTI][1:])
def test_command_of_multi(form, ini):
    """What ``celery multi`` starts is a worker of the application, in each form."""
    shown = multi(form, "show w3", ini).stdout.replace(" --detach", "")
    command = shlex.split(shown.partition(" -m ")[2])
    with start(*command, cwd=ini.parent, **environ(form)) as worker:
        log = ini.parent / "w3.log"
        worker.wait_until(lambda: log.exists() and " ready." in log.read_text())
        assert "Connected to redis://" in log.read_text()
    log.unlink()
    (ini.parent / "w3.pid").unlink()
