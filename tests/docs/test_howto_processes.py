"""The pages with recipes that are followed in processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from documents import Document, WriteApp
from servers import listens, need_web_server
from shop import place
from support import DEADLINE, QUICK, free_port, run, start, start_worker

pytestmark = pytest.mark.acceptance

# Forking web servers

FORKING = Document("docs/howto/forking.md")
GUNICORN = FORKING.block("gunicorn", "sh")
GUNICORN_CONF = FORKING.block("gunicorn", "python")
UWSGI = FORKING.block("uWSGI", "sh")
UWSGI_INI = FORKING.block("uWSGI", "ini")


@pytest.mark.parametrize("server", ["gevent", "uwsgi"])
def test_web_servers(
    server: str, write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """The servers serve the application; gunicorn replaces threads in time."""
    need_web_server(server)
    port = free_port()
    write_example(name="production.ini", more=UWSGI_INI.replace("6543", str(port)))
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN_CONF)
    command = UWSGI if server == "uwsgi" else f"{GUNICORN.strip()} -k gevent"
    words = command.replace("6543", str(port)).split()
    # gunicorn has a socket of its own at home.
    with start(*words, cwd=tmp_path, HOME=str(tmp_path)) as process:
        process.wait_until(lambda: listens(port))
        status, _ = place(f"http://localhost:{port}/nothing", DEADLINE)
        assert status == 404, process.output
        assert "MonkeyPatchWarning" not in process.output


# Logging: the filter of the page is in test_howto.py

LOGGING = Document("docs/howto/logging.md")
SHIP, LOGGING_INI, LINE = (
    LOGGING.block("In the ini", each) for each in ("python", "ini", "text")
)


def test_log(write_app: WriteApp, redis_queue: dict[str, str]) -> None:
    """A line of a task has its name and its id."""
    app = write_app(SHIP, f"[app:main]\n\n{LOGGING_INI}", redis_queue)
    with start_worker("config.ini", *QUICK, **app) as worker:
        call = ("celery", "--ini", "config.ini", "call", "myapp.ship", "--args=[7]")
        task_id = run(*call, **app).stdout.strip()
        worker.wait_for(LINE.strip().replace("…", task_id))
        nothing = r"INFO \?\?\?\[\?\?\?\] celery\.\S+: .* ready\."
        assert re.search(nothing, worker.output)


# Queues: what chooses one is in test_howto.py

QUEUES = Document("docs/howto/queues.md")
QUEUES_INI = QUEUES.block("Two workers in one ini", "ini")
WORKERS, (PTASKS,) = (
    text.splitlines() for text in QUEUES.blocks("sh", "Two workers in one ini")
)
MAILER = """
from pyramid_tasks import task


@task(name="myapp.tasks.send_mail")
def send_mail(request): ...
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (WORKERS[0], ["celery           exchange", "concurrency: 4"]),
        (WORKERS[1], ["emails           exchange", "concurrency: 1"]),
        (PTASKS, ["myapp.tasks.send_mail", "emails"]),
    ],
)
def test_queue_command(command: str, expected: list[str], write_app: WriteApp) -> None:
    """Each worker reads its queue, and the task is in the list with its own."""
    ini = QUEUES_INI.replace("use = egg:myapp\n", "")
    app = write_app(MAILER, ini.replace("redis://localhost", "memory://"))
    with start(*command.split(), **app) as process:
        for text in expected:
            process.wait_for(text)


# Shells and scripts

SCRIPTS = Document("docs/howto/scripts.md")
PSHELL, CALL = SCRIPTS.blocks("sh", "From a shell")
LINES = SCRIPTS.blocks("python", "From a shell")
SCRIPT = SCRIPTS.block("From a script", "python")
RUN = SCRIPTS.block("From a script", "sh")
CLEANUP = """
from pyramid_tasks import task


@task(name="myapp.tasks.cleanup")
def cleanup(request, days):
    print(f"cleaned {days}")
"""
SCRIPTS_INI = """
[app:main]
pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm
tm.manager_hook = pyramid_tm.explicit_manager
"""


def test_shells_and_scripts(
    write_app: WriteApp, redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """Each way has a worker run the task."""
    pytest.importorskip("pyramid_tm")
    app = write_app(CLEANUP, SCRIPTS_INI, redis_queue)
    (tmp_path / "cleanup.py").write_text(SCRIPT)
    with start_worker("config.ini", *QUICK, **app) as worker:
        typed = "\n\n".join([*LINES, ""])
        shell = run(*PSHELL.split(), "-p", "python", stdin=typed, **app)
        assert shell.returncode == 0, shell.stdout + shell.stderr
        for command in CALL, RUN:
            done = run(*re.sub("'", "", command).split(), **app)
            assert re.fullmatch(r"[-0-9a-f]{36}\n", done.stdout), done.stderr
        worker.wait_until(lambda: worker.output.count("cleaned 30") == 4)
