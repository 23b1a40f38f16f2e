"""A worker runs, stops and makes way for another as the page on deployment says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from documents import Document, shell
from support import (
    BIN,
    Process,
    as_ini,
    free_port,
    logging_sections,
    run,
    skip_or_fail,
    start,
    wait_until,
)

PAGE = Document("docs/howto/deployment.md")
INI = PAGE.block("The ini", "ini")
MAIN = PAGE.block("Secrets", "python")
SECRETS = PAGE.block("Secrets", "sh")
WORKER, BEAT = PAGE.blocks("ini", "systemd")
#: What the page says of the relay in words.
RELAY = BEAT.replace("loaders beat", "loaders outbox run")
SUPERVISOR = PAGE.block("supervisor", "ini")
DOCKERFILE = PAGE.block("Containers", "dockerfile")
COMPOSE = yaml.safe_load(PAGE.block("Containers", "yaml"))
PING = PAGE.block("Is a worker alive?", "sh")
CHECK = PAGE.block("A new version", "sh")
CHECKED = PAGE.block("A new version", "text")

pytestmark = pytest.mark.acceptance

HOST = socket.gethostname()
PROGRAMS = "/srv/myapp/.venv/bin"

# What the page leaves to its reader: a project, with a database and an outbox.
PROJECT = """
[project]
name = "myapp"
version = "1.0"

[project.entry-points."paste.app_factory"]
main = "myapp:main"
"""
REST = """
import os
import subprocess
import time
from pathlib import Path

import zope.sqlalchemy
from pyramid.view import view_config
from pyramid_tasks import task
from pyramid_tasks.contrib.outbox_table import metadata
from sqlalchemy import create_engine
from sqlalchemy.orm import Session


@task
def work(request, folder):
    "Say in which process it runs, and end when there is a file that says so."
    host = request.current_task.request.hostname
    with open(f"{folder}/begun", "a") as begun:
        begun.write(f"{os.getpid()}\\n")
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    return host


@task
def start_program(request, folder):
    with subprocess.Popen(["sleep", "600"]) as program:
        with open(f"{folder}/begun", "a") as begun:
            begun.write(f"{program.pid}\\n")


@view_config(route_name="work", renderer="json")
def start_work(request):
    return request.defer_task(work, request.GET["folder"]).id


def dbsession(request):
    session = Session(request.registry["engine"])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def includeme(config):
    url = config.get_settings()["sqlalchemy.url"]
    config.registry["engine"] = create_engine(url)
    config.add_request_method(dbsession, reify=True)
    config.add_route("work", "/work")
"""
LOGGING = logging_sections("as in the ini: %(message)s")


class Server:
    """A machine on which the project is installed, below a folder for its root.

    In ``env`` are the secrets of the page, with values for this machine, and more.
    """

    def __init__(self, root: Path, site: Path, broker: dict[str, str]) -> None:
        self.root = root
        self.folder = root / "srv" / "myapp"
        self.port = free_port()
        values = {
            "CELERY_BROKER_URL": broker.pop("broker_url"),
            "CELERY_RESULT_BACKEND": broker.pop("result_backend"),
            "DATABASE_URL": f"sqlite:///{root}/db.sqlite",
        }
        names = re.findall(r"^(\w+)=", SECRETS, re.MULTILINE)
        self.secrets = {name: values[name] for name in names}
        self.env = self.secrets | {"PYTHONPATH": str(site)}
        app = f"""use = egg:myapp
pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm myapp.rest
pyramid_tasks.delivery = outbox
{as_ini(broker)}
"""
        ini = self.here(INI).replace("use = egg:myapp\n", app)
        ini += f"[server:main]\nuse = egg:waitress#main\nlisten = *:{self.port}\n"
        self.folder.mkdir(parents=True)
        (self.folder / "production.ini").write_text(ini + LOGGING)
        (root / "var/lib/myapp").mkdir(parents=True)
        created = self.celery("outbox", "create")
        assert created.returncode == 0, created.stderr

    def here(self, text: str) -> str:
        """Return a text of the page with the paths of this machine."""
        text = text.replace(PROGRAMS, str(BIN))
        for path in ("/srv/myapp", "/var/lib/myapp"):
            text = text.replace(path, f"{self.root}{path}")
        return text

    def celery(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = ("celery", "-A", "pyramid_tasks.loaders", *arguments)
        uri = f"{self.folder}/production.ini?concurrency=4"
        return run(*command, cwd=self.root, CELERY_INI=uri, **self.env)

    def defer(self, task: str = "work") -> str:
        """Defer a task that waits, and return its id."""
        called = self.celery("call", f"myapp.rest.{task}", f'--args=["{self.root}"]')
        assert called.returncode == 0, called.stderr
        return called.stdout.strip()

    def begun(self) -> list[str]:
        """Return the ids of the processes that tasks have begun in."""
        path = self.root / "begun"
        return path.read_text().split() if path.exists() else []

    def let_work_end(self) -> None:
        (self.root / "go").touch()

    def result(self, task_id: str) -> str:
        return self.celery("result", task_id).stdout.strip()

    def ping(self, line: str, **env: str) -> int:
        """Run the check of the page, as a shell expands it, and return its status."""
        expand = f"printf '%s\\n' {line}"
        words = shell(expand, self.folder, program="sh", **env).stdout.splitlines()
        return run(*words, cwd=self.folder, **self.env | env).returncode

    def stop(self, worker: Process) -> None:
        """Tell a worker to stop, whose task ends only after that."""
        worker.popen.send_signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        self.let_work_end()
        assert worker.popen.wait(60) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the project as the Dockerfile does, without a download."""
    folder = tmp_path_factory.mktemp("myapp")
    (folder / "myapp").mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "myapp" / "__init__.py").write_text(MAIN)
    (folder / "myapp" / "rest.py").write_text(REST)
    (line,) = re.findall("^RUN (pip install .*)$", DOCKERFILE, re.MULTILINE)
    options = "--no-index --no-deps --no-build-isolation --quiet --target=site"
    done = shell(f"python -m {line} {options}", folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def server(tmp_path: Path, site: Path, redis_queue: dict[str, str]) -> Server:
    return Server(tmp_path, site, dict(redis_queue))


# systemd


def unit(changes: str = "") -> ConfigParser:
    """Return the unit of the worker, changed as the page says."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # keys as they are written
    parser.read_string(WORKER)
    parser.read_string(changes)
    return parser


@contextmanager
def start_unit(server: Server, unit: ConfigParser, name: str = "") -> Iterator[Process]:
    """Start the process of a unit as systemd does."""
    service = {
        key: server.here(value).replace("%i", name).replace("%H", HOST)
        for key, value in unit["Service"].items()
    }
    assert service["EnvironmentFile"] == f"{server.folder}/secrets.env"
    variables = dict(word.split("=", 1) for word in shlex.split(service["Environment"]))
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == f"{BIN}/celery"
    folder = Path(service["WorkingDirectory"])
    with start("celery", *arguments, cwd=folder, **variables | server.env) as process:
        yield process


@contextmanager
def start_worker(server: Server, name: str) -> Iterator[Process]:
    with start_unit(server, unit(), name) as worker:
        worker.wait_for(f"as in the ini: {name}@{HOST} ready.")
        yield worker


def test_units_are_valid(tmp_path: Path) -> None:
    """systemd finds no mistake in the units."""
    if not shutil.which("systemd-analyze"):
        skip_or_fail("systemd-analyze is missing: apt-get install systemd")
    names = "myapp-worker@.service", "myapp-beat.service", "myapp-relay.service"
    for name, changes in zip(names, ["", BEAT, RELAY], strict=True):
        assert f"`{name}`" in PAGE.text or f"/{name}`" in PAGE.text
        parser = unit(changes)
        # systemd wants to find the program.
        command = parser["Service"]["ExecStart"].replace(PROGRAMS, str(BIN))
        parser["Service"]["ExecStart"] = command
        with (tmp_path / name).open("w") as file:
            parser.write(file, space_around_delimiters=False)
    (enable,) = re.findall("`systemctl enable --now (.*)`", PAGE.text)
    files = " ".join([f"{enable}.service", *names[1:]])
    verified = shell(f"systemd-analyze verify {files}", tmp_path)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_worker_of_systemd(server: Server) -> None:
    """It is told to stop alone, ends its task first, and the check sees it."""
    assert unit()["Service"]["KillMode"] == "mixed"
    env = {"CELERY_INI": f"{server.folder}/production.ini?concurrency=4"}
    with start_worker(server, "one") as worker:
        assert "concurrency: 4 (prefork)" in worker.output
        task_id = server.defer()
        worker.wait_until(server.begun)
        assert server.ping(PING, **env) == 0
        server.stop(worker)
    assert server.result(task_id) == f"one@{HOST}"
    assert server.ping(PING, **env) == 69
    away = {"CELERY_BROKER_URL": f"redis://localhost:{free_port()}"}
    assert server.ping(PING, **env, **away) == 69


def test_new_version(server: Server) -> None:
    """A second worker takes over what the first has not begun; each task runs once."""
    with start_worker(server, "one") as one:
        task_ids = [server.defer() for _ in range(6)]
        one.wait_until(lambda: len(server.begun()) == 4)
        one.wait_until(lambda: all(task_id in one.output for task_id in task_ids))
        with start_worker(server, "two") as two:
            server.stop(one)
            two.wait_until(lambda: two.output.count(" succeeded in ") == 2)
    results = re.findall(r" succeeded in .*: '(.*)'", one.output + two.output)
    assert sorted(results) == [f"one@{HOST}"] * 4 + [f"two@{HOST}"] * 2


def test_task_that_a_worker_does_not_know(server: Server) -> None:
    """Its message is thrown away, with an error in the log."""
    with start_worker(server, "one") as worker:
        server.celery("call", "myapp.rest.new")
        worker.wait_for("Received unregistered task of type 'myapp.rest.new'")
        worker.wait_for("has been ignored and discarded")


def test_beat_of_systemd(server: Server) -> None:
    """It starts, and keeps its times in the state directory."""
    beat = unit(BEAT)
    state = server.root / "var/lib" / beat["Service"]["StateDirectory"]
    with start_unit(server, beat) as process:
        process.wait_for("as in the ini: beat: Starting")
        process.wait_until(lambda: list(state.iterdir()))


def test_relay_of_systemd(server: Server) -> None:
    """It sends what a process left behind that had no broker."""
    defer = (
        "from pyramid.paster import bootstrap\n"
        "with bootstrap('production.ini') as env, env['request'].tm:\n"
        f"    env['request'].defer_task('myapp.rest.work', {str(server.root)!r})\n"
    )
    away = {"CELERY_BROKER_URL": f"redis://localhost:{free_port()}"}
    left = run("python", "-c", defer, cwd=server.folder, **server.env | away)
    assert left.returncode == 0, left.stderr
    with start_unit(server, unit(RELAY)) as relay:
        relay.wait_for("as in the ini: Sent 1 messages of the outbox")


# supervisor


SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=%(here)s/supervisord.log
pidfile=%(here)s/supervisord.pid
childlogdir=%(here)s
[unix_http_server]
file=%(here)s/sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%(here)s/sock
[include]
files=conf.d/*.conf
"""


@contextmanager
def supervised(server: Server, page: str) -> Iterator[Callable[[], str]]:
    """Start supervisord, and give a function that returns the log of the worker."""
    (server.root / "supervisord.conf").write_text(SUPERVISORD)
    (server.root / "conf.d").mkdir()
    page = server.here(page.replace("user=myapp\n", ""))  # no user of this machine
    for name, value in server.secrets.items():
        mine = f'{name}="{value.replace("%", "%%")}"'
        page, number = re.subn(rf'{name}=".*"', mine, page)
        assert number == 1, name
    (server.root / "conf.d" / "myapp.conf").write_text(page)
    options = ("--configuration", "supervisord.conf")

    def log() -> str:
        logs = server.root.glob("myapp-worker-stdout*")
        return "".join(path.read_text() for path in logs)

    with start("supervisord", *options, cwd=server.root, **server.env) as process:
        process.wait_until(lambda: " ready." in log(), "ready", 60)
        try:
            yield log
        finally:
            # As supervisord would wait for it when it is stopped itself.
            server.let_work_end()
            process.stop()


def stop_program(server: Server) -> subprocess.Popen[bytes]:
    command = [str(BIN / "supervisorctl"), "-c", "supervisord.conf"]
    return subprocess.Popen([*command, "stop", "myapp-worker"], cwd=server.root)


def test_worker_of_supervisor(server: Server) -> None:
    """It is told to stop alone, and ends its task first."""
    with supervised(server, SUPERVISOR) as log:
        assert "concurrency: 4 (prefork)" in log()
        task_id = server.defer()
        wait_until(server.begun)
        with stop_program(server) as stopping:
            wait_until(lambda: "Warm shutdown" in log(), what=log)
            assert stopping.poll() is None
            server.let_work_end()
            assert stopping.wait(60) == 0
        assert server.result(task_id) == f"celery@{HOST}"


def test_children_of_supervisor_that_are_told_to_stop(server: Server) -> None:
    """With ``stopasgroup``, a task is lost that a child was at."""
    wrong = SUPERVISOR.replace("stopasgroup=false", "stopasgroup=true")
    assert wrong != SUPERVISOR
    with supervised(server, wrong) as log:
        server.defer()
        wait_until(server.begun)
        with stop_program(server) as stopping:
            wait_until(lambda: "WorkerLostError" in log(), what=log)
            assert stopping.wait(60) == 0


def test_worker_of_supervisor_that_takes_too_long(server: Server) -> None:
    """It is killed, with what its tasks have started."""
    page = SUPERVISOR.replace("stopwaitsecs=330", "stopwaitsecs=1")
    assert page != SUPERVISOR
    with supervised(server, page):
        server.defer("start_program")
        (pid,) = wait_until(server.begun)
        with stop_program(server) as stopping:
            assert stopping.wait(60) == 0
        wait_until(lambda: not runs(pid), what=lambda: "the end of the program")


def runs(pid: str) -> bool:
    """Whether a process runs, and is not one that only waits for its parent."""
    path = Path("/proc", pid, "cmdline")
    return path.exists() and bool(path.read_bytes())


# Containers: there is no Docker in the tests, so what stands in the files is done here.


def instructions(name: str) -> list[str]:
    """Return what stands behind an instruction of the Dockerfile."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


@contextmanager
def start_service(server: Server, name: str) -> Iterator[Process]:
    """Start the process of a service, with the environment of its container."""
    service = COMPOSE["services"][name]
    (cmd,) = instructions("CMD")
    program, *arguments = service.get("command", json.loads(cmd))
    variables = dict(server.here(line).split("=", 1) for line in instructions("ENV"))
    assert service["env_file"] == "secrets.env"
    (workdir,) = instructions("WORKDIR")
    folder = Path(server.here(workdir))
    with start(program, *arguments, cwd=folder, **variables | server.env) as process:
        yield process


def test_containers(server: Server) -> None:
    """A request to the web service is a task in the worker's, which is healthy."""
    (env,) = instructions("ENV")
    with start_service(server, "web") as web, start_service(server, "worker") as worker:
        worker.wait_for(f"as in the ini: celery@{HOST} ready.")
        assert "concurrency: 2 (prefork)" in worker.output
        check = COMPOSE["services"]["worker"]["healthcheck"]["test"].replace("$$", "$")
        healthy = {"HOSTNAME": HOST, "CELERY_INI": server.here(env).split("=", 1)[1]}
        assert server.ping(check, **healthy) == 0
        web.wait_for("Serving on")
        url = f"http://localhost:{server.port}/work?folder={server.root}"
        with urllib.request.urlopen(url, timeout=30) as response:
            task_id = json.load(response)
        worker.wait_until(server.begun)
        server.stop(worker)
    assert server.result(task_id) == f"celery@{HOST}"


def test_container_of_beat(server: Server) -> None:
    """It has a volume where its times are, which the user of the image can write to."""
    (volume,) = COMPOSE["services"]["beat"]["volumes"]
    name, _, path = volume.partition(":")
    assert name in COMPOSE["volumes"]
    (user,) = instructions("USER")
    runs_as = f"useradd --system {user}", f"--owner={user} {path}"
    assert any(all(each in line for each in runs_as) for line in instructions("RUN"))
    with start_service(server, "beat") as process:
        process.wait_for("as in the ini: beat: Starting")
        process.wait_until(lambda: list(Path(server.here(path)).iterdir()))


# The ini


def test_settings(server: Server) -> None:
    """There is no mistake in the ini, and no broker, which is in the environment.

    The servers answer as on the page, but for their names and versions.
    """
    uri = "production.ini?concurrency=4"
    checked = run(*shlex.split(CHECK), cwd=server.folder, **server.env)
    lines = checked.stdout.splitlines()
    for line, said in zip(lines, CHECKED.splitlines(), strict=True):
        for part in re.split(r"\S+://\S+|\S+ \d[.\d]+|celery\.$", said):
            assert part in line
    del server.env["CELERY_BROKER_URL"]
    refused = run("ptasks", "--check", uri, cwd=server.folder, **server.env)
    assert "names no broker" in refused.stdout


def test_variable_with_a_default(server: Server) -> None:
    """What ``[DEFAULT]`` sets, a variable of the URI does not."""
    ini = server.folder / "production.ini"
    ini.write_text(f"[DEFAULT]\nconcurrency = 3\n{ini.read_text()}")
    assert "worker_concurrency: 3" in server.celery("report").stdout
