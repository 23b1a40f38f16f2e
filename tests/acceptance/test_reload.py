"""``--reload``: a worker or beat that starts again when its files change."""

import os
import shlex
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import celery.bin.celery
import pytest
from support import (
    APPS,
    DEADLINE,
    QUICK,
    UNMEASURED,
    as_ini,
    make_client,
    run,
    start,
    wait_until,
)

pytestmark = pytest.mark.acceptance

APPLICATION = """\
import time
from pathlib import Path

from pyramid.config import Configurator

from pyramid_tasks import task


@task
def answer(request):
    return ["{answer}", request.registry.settings.get("example.setting")]


@task
def wait_for(request, path):
    Path(path + ".started").touch()
    while not Path(path).exists():
        time.sleep(0.05)
    return "{answer}"


def configure(settings):
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.scan("reloaded")
    return config


def main(global_config, **settings):
    return configure(settings).make_wsgi_app()
"""

BEFORE = "celery -A pyramid_tasks.loaders --ini config.ini --reload worker"
AFTER = "celery -A pyramid_tasks.loaders worker --ini config.ini --reload"
SHORT = "celery --ini config.ini worker --reload"
# Each other form is the command of one test below.

CELERY_INI = {"CELERY_INI": "config.ini"}

SCHEDULE = "[celerybeat:{name}]\ntask = reloaded.answer\nschedule = 0.2\n"


class Project:
    """An application in a folder, and a client that has nothing of it."""

    def __init__(self, folder, broker):
        self.module = folder / "reloaded.py"
        self.ini = folder / "config.ini"
        self.folder = folder
        self.broker = broker
        self.module.write_text(self.code("old"))
        self.ini.write_text(self.configuration("old"))
        self.client = make_client(broker)

    def code(self, answer):
        return APPLICATION.format(answer=answer)

    def configuration(self, setting, more=""):
        return (
            "[app:main]\nuse = call:reloaded:main\n"
            f"example.setting = {setting}\n{as_ini(self.broker)}\n"
            f"[celery:main]\nworker_concurrency = 2\n{more}\n"
        )

    def run(self, line, **env):
        """Run a command of ``celery`` to its end."""
        command = shlex.split(f"celery -A pyramid_tasks.loaders {line}")
        return run(*command, cwd=self.folder, PYTHONPATH=str(self.folder), **env)

    @contextmanager
    def start(self, line, *options, measured=False, **env):
        """Start a command that is reloaded."""
        env = env if measured else UNMEASURED | env
        path = f"{self.folder}{os.pathsep}{APPS}"
        # Hupper looks for changes often, and ends the sooner.
        monitor = "quickly.QuickMonitor"
        env = {"PYTHONPATH": path, "HUPPER_DEFAULT_MONITOR": monitor} | env
        command = (*shlex.split(line), "--loglevel=INFO", *options)
        with start(*command, cwd=self.folder, **env) as process:
            yield process
        assert process.output.startswith("Starting monitor for PID")

    def answers(self, answer, setting):
        result = self.client.send_task("reloaded.answer")
        return result.get(timeout=DEADLINE) == [answer, setting]

    @contextmanager
    def start_waiting(self, line, *options, **more):
        """Start a worker, and a task in it that waits for a file; give the three."""
        gate = self.folder / "gate"
        with self.start(line, *options, *QUICK, **more) as worker:
            wait_for(worker, " ready.")
            result = self.client.send_task("reloaded.wait_for", [str(gate)])
            worker.wait_until(Path(f"{gate}.started").exists)
            yield worker, result, gate


@pytest.fixture
def project(tmp_path, redis_queue):
    """Return an application whose files a test can change."""
    return Project(tmp_path, redis_queue)


def session(process):
    """Return the living processes that a command has started, and itself."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, leader = path.read_text().rpartition(") ")[2].split()[:4]
            if int(leader) == process.popen.pid and state != "Z":
                found.add(int(path.parent.name))
    return found


def wait_for(process, *texts):
    """Wait until texts are in the output since the last change."""

    def are_there():
        since = process.output.rpartition("changed; reloading")[2]
        return all(text in since for text in texts)

    process.wait_until(are_there, repr(texts))


def change(process, path, text=None, *more):
    """Change files, and wait until that is noticed."""
    messages = {each: f"{each} changed; reloading" for each in (path, *more)}
    before = {each: process.output.count(messages[each]) for each in messages}
    if text is not None:
        path.write_text(text)

    def are_noticed():
        output = process.output
        left = [each for each in before if output.count(messages[each]) == before[each]]
        for each in left:
            # Again, as a module is watched a moment after it has been imported.
            os.utime(each)
        return not left

    process.wait_until(are_noticed, repr(messages))


def test_configuration(project):
    """The file, those it includes, and ``[pserve] watch_files`` are watched.

    ``[pserve] ignore_files`` are left alone, as by ``pserve``.
    """
    template, text = project.folder / "page 1.html", project.folder / "data" / "a.txt"
    text.parent.mkdir()
    generated = project.folder / "of a tool.jinja2"
    for path in (template, text, text.parent / "__init__.py", generated):
        path.touch()
    base = project.folder / "base.ini"
    base.write_text(project.configuration("old"))
    project.ini.write_text(
        "[app:main]\nuse = config:%(here)s/base.ini\n\n"
        "[pserve]\nwatch_files =\n  *.jinja2\n  page 1.html\n  data:%(name)s.txt\n"
        "ignore_files = */of a tool.jinja2\n"
    )
    line = BEFORE.replace("config.ini", "config.ini?name=a")
    with project.start(line, "--pool=solo", *QUICK, measured=True) as worker:
        wait_for(worker, " ready.")
        assert project.answers("old", "old")
        os.utime(generated)
        # In the order of their names, in which hupper looks at them.
        others = (project.ini, text, template, project.module)
        change(worker, base, project.configuration("new"), *others)
        wait_for(worker, " ready.")
        assert project.answers("old", "new")
        assert "tool.jinja2 changed" not in worker.output


#: What goes wrong, in which file, and what is said of it.
NUMBER = "[app:main]\nuse = call:reloaded:main\ncelery.worker_concurrency = many\n"
WATCHED = "[app:main]\n\n[pserve]\nwatch_files = no_such_package:*.txt\n"
BROKEN = [
    ("config.ini", "example = 1\n", "before the first [section]"),
    ("config.ini", NUMBER, "celery.worker_concurrency"),
    ("config.ini", WATCHED, "[pserve], watch_files: no_such_package:*.txt"),
    ("reloaded.py", "def broken(:\n", "SyntaxError: invalid syntax"),
]
WAITING = "Waiting for a file to change"


def test_error_waits_for_next_change(project):
    """What cannot be loaded, at the start or later, is loaded when it is mended.

    Ctrl-C ends what waits.
    """
    good = {path: path.read_text() for path in (project.ini, project.module)}
    path = project.ini
    path.unlink()
    with project.start(BEFORE, "--pool=solo", *QUICK, measured=True) as worker:
        wait_for(worker, "config.ini: there is no such file.", WAITING)
        change(worker, path, good[path])
        wait_for(worker, " ready.")
        assert project.answers("old", "old")
        for name, text, message in BROKEN:
            path.write_text(good[path])
            path = project.folder / name
            change(worker, path, text)
            wait_for(worker, message, WAITING)
        change(worker, path, good[path])
        wait_for(worker, " ready.")
        assert project.answers("old", "old")
        change(worker, path, "1 / 0\n")
        wait_for(worker, "ZeroDivisionError", WAITING)
        os.killpg(worker.popen.pid, signal.SIGINT)
        worker.popen.wait(DEADLINE)
        assert not session(worker)


def test_project_without_ini(project):
    """``celery -A myproject --reload worker`` watches the modules of a project."""
    settings = {f"celery.{key}": value for key, value in project.broker.items()}
    (project.folder / "myproject.py").write_text(
        f"import reloaded\napp = reloaded.configure({settings!r}).make_celery_app()\n"
    )
    line = "celery -A myproject --reload worker --pool=solo"
    with project.start(line, *QUICK) as worker:
        wait_for(worker, " ready.")
        change(worker, project.module, project.code("new"))
        wait_for(worker, " ready.")
        assert project.answers("new", None)


@pytest.mark.skipif(
    hasattr(celery.bin.celery, "App"),
    reason="this Celery takes an error in the module of -A for one on the command line",
)
def test_error_in_project_without_ini_waits(project):
    """A module that cannot be imported is read again when it is mended.

    So is a module that it imports, whatever the error.
    """
    (project.folder / "myproject.py").write_text("import reloaded\n")
    project.module.write_text("def broken(:\n")
    line = "celery -A myproject --reload worker"
    with project.start(line, measured=True) as worker:
        wait_for(worker, "SyntaxError", WAITING)
        other = project.folder / "other.py"
        other.write_text("1 / 0\n")
        change(worker, project.module, "import other\n")
        wait_for(worker, "ZeroDivisionError", WAITING)
        change(worker, other, "from broken_otherwise import app\n")
        worker.wait_for("No module named 'broken_otherwise'")


@pytest.mark.parametrize(
    ("pool", "line"),
    [
        ("prefork", "celery -A pyramid_tasks worker --reload --ini=config.ini"),
        ("threads", AFTER),
    ],
)
def test_running_task_ends_first(pool, line, project):
    """A task that runs when a file changes ends, with its result, before the worker."""
    started = project.start_waiting(line, f"--pool={pool}", measured=True)
    with started as (worker, result, gate):
        change(worker, project.module, project.code("new"))
        worker.wait_for("Warm shutdown")
        assert not result.ready()
        gate.touch()
        assert result.get(timeout=DEADLINE) == "old"
        wait_for(worker, " ready.")
        assert "killed" not in worker.output
        assert project.answers("new", "old")


@pytest.mark.parametrize(("pool", "line"), [("prefork", BEFORE), ("solo", SHORT)])
def test_task_that_does_not_end_is_killed(pool, line, project):
    """After ten seconds, the worker ends all the same, and each of its processes."""
    options = (f"--pool={pool}", "--beat")
    with project.start_waiting(line, *options, measured=True) as (worker, result, _):
        started = session(worker) - {worker.popen.pid}
        assert len(started) == (4 if pool == "prefork" else 2)
        change(worker, project.module, project.code("new"))
        wait_for(worker, " ready.")
        assert "Tasks still run after 10 seconds: killed." in worker.output
        assert not started & session(worker)
        assert project.answers("new", "old")
        assert not result.ready()


@pytest.mark.parametrize(
    ("pool", "line", "env"),
    [
        ("prefork", "celery -A pyramid_tasks.loaders worker --reload", CELERY_INI),
        ("solo", "celery -A pyramid_tasks --reload --ini config.ini worker", {}),
    ],
)
def test_ctrl_c_ends_all(pool, line, env, project):
    """Ctrl-C, which every process of a terminal gets, ends them without force."""
    options = (f"--pool={pool}", "--beat", *QUICK)
    with project.start(line, *options, **env) as worker:
        wait_for(worker, " ready.")
        os.killpg(worker.popen.pid, signal.SIGINT)
        worker.popen.wait(DEADLINE)
        assert not session(worker)
        assert "Warm shutdown" in worker.output
        assert "kill" not in worker.output
        assert "Traceback" not in worker.output


def test_second_ctrl_c_does_not_wait_for_a_task(project):
    """As with any worker, the second Ctrl-C ends the tasks that run."""
    with project.start_waiting(BEFORE, "--pool=prefork") as (worker, *_):
        os.killpg(worker.popen.pid, signal.SIGINT)
        worker.wait_for("Warm shutdown")
        os.killpg(worker.popen.pid, signal.SIGINT)
        worker.popen.wait(DEADLINE)
        assert not session(worker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_reloader_alone(number, project):
    """A service manager or an editor, which knows one process, ends them all."""
    line = "celery -A pyramid_tasks.loaders --reload worker"
    options = ("--pool=prefork", "--beat", *QUICK)
    with project.start(line, *options, **CELERY_INI) as worker:
        wait_for(worker, " ready.")
        assert len(session(worker)) == 5
        worker.popen.send_signal(number)
        worker.popen.wait(DEADLINE)
        wait_until(lambda: not session(worker), what=lambda: worker.output)


def test_beat_ends_with_its_worker(project):
    """A worker that is killed leaves no beat, which would go on beside the next one."""
    with project.start(BEFORE, "--pool=solo", "--beat") as worker:
        wait_for(worker, " ready.", "beat: Starting...")
        monitor = worker.popen.pid
        started = session(worker) - {monitor}
        assert len(started) == 2
        children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text()
        os.kill(int(children), signal.SIGKILL)
        worker.wait_until(lambda: not started & session(worker), "the end of beat")


def test_beat(project):
    """Beat queues by the new schedule."""
    first, second = (
        project.configuration("old", SCHEDULE.format(name=name))
        for name in ("first", "second")
    )
    project.ini.write_text(first)
    line = "celery -A pyramid_tasks.loaders beat --ini config.ini --reload"
    with project.start(line, HUPPER_DEFAULT_MONITOR="") as beat:
        beat.wait_for("Sending due task first")
        change(beat, project.ini, second)
        beat.wait_for("Sending due task second")


def test_workdir_is_entered_once(project):
    """A relative ``--workdir`` is not looked for in itself."""
    parent, name = project.folder.parent, project.folder.name
    line = BEFORE.replace("celery ", f"celery --workdir {shlex.quote(name)} ", 1)
    command = [*shlex.split(line), "--pool=solo", "--loglevel=INFO", *QUICK]
    with start(*command, cwd=parent, PYTHONPATH=str(project.folder)) as worker:
        worker.wait_for(" ready.")
        worker.stop()


USAGE = {
    "--ini config.ini --reload inspect ping": "goes with worker and beat, not with",
    "--ini config.ini --reload call reloaded.answer": "not with call.",
    "--ini config.ini --reload multi start w1": "not with multi.",
    "--ini config.ini --reload flower": "not with flower.",
    "--ini config.ini inspect --reload ping": "No such option",
    "inspect ping --ini config.ini --reload": "No such option",
    "--ini config.ini --reload worker --detach": "leave --detach out",
    "--ini config.ini worker --reload -D": "leave --detach out",
    "worker --detach --reload --ini config.ini": "leave --detach out",
    "--ini config.ini --reload beat --detach": "leave --detach out",
    "--reload worker": "No configuration file: pass --ini config.ini",
    "worker --reload": "No configuration file: pass --ini config.ini",
    "--ini config.ini --reload worker --no-such": "No such option",
    "--ini config.ini worker --reload --no-such": "No such option",
    "--ini config.ini --ini-var x --reload worker": "'x' is not NAME=VALUE.",
}


@pytest.mark.parametrize("line", USAGE)
def test_mistake_on_the_command_line_ends_it(line, project):
    """Where no file could mend it, a sentence and status 2, without waiting."""
    done = project.run(line)
    assert done.returncode == 2, done.stderr
    assert USAGE[line] in done.stderr
    assert "Waiting" not in done.stdout
    assert "Traceback" not in done.stderr


def test_nodes_of_multi(project):
    """``celery multi`` says why its nodes cannot be reloaded."""
    options = "--ini=config.ini --reload --pidfile=%n.pid --logfile=%n.log"
    done = project.run(f"multi start w1 {options}")
    assert "leave --detach out" in done.stdout + done.stderr


def test_help_of_commands(project):
    """``--help`` shows the option where it is accepted."""
    for command, shown in {"worker": True, "beat": True, "events": False}.items():
        done = project.run(f"{command} --help")
        assert done.returncode == 0, done.stderr
        assert ("--reload" in done.stdout) == shown


def test_environment_does_not_reload(project):
    """Unlike Celery's own options, it is not read from ``CELERY_...``."""
    done = project.run("--ini config.ini report", CELERY_RELOAD="1")
    assert done.returncode == 0, done.stderr
