"""Other Celery projects, and Pyramid's own scripts, do not notice the package."""

import json
import shlex
import urllib.request
from importlib.metadata import version

import pytest
from support import (
    QUICK,
    example_config,
    filesystem_settings,
    free_port,
    run,
    serve,
    start,
)

from pyramid_tasks.settings import extract_celery_settings

pytestmark = pytest.mark.acceptance

#: Celery without the entry point of this package, as if that was not installed.
WITHOUT = """\
import importlib.metadata
import sys

entry_points = importlib.metadata.entry_points

def without(**params):
    found = entry_points(**params)
    kept = [entry for entry in found if not entry.value.startswith("pyramid_tasks")]
    return importlib.metadata.EntryPoints(kept)

importlib.metadata.entry_points = without
sys.argv[0] = "celery"

from celery.__main__ import main

main()
"""

NEIGHBOUR = """\
from celery import Celery

app = Celery("neighbour")
app.conf.update({settings!r})


@app.task
def add(x, y):
    return x + y
"""

WITH_OPTIONS = """\
from celery import Celery, signals
from click import Option

app = Celery("options", broker="memory://")
app.user_options["preload"].add(Option(["-Z", "--template"], default="plain"))


@signals.user_preload_options.connect
def on_preload_parsed(options, **kwargs):
    print("template:", options["template"])
"""


def run_without(*arguments, cwd):
    script = cwd / "without.py"
    script.write_text(WITHOUT)
    return run(script, *arguments, cwd=cwd, fresh=False)


@pytest.mark.parametrize(
    "arguments",
    [
        "--version",
        "worker --help",
        "multi help",
        "-A no_such_module report",
        "-A neighbour no-such-command",
        "no-such-command",
        "-A neighbour wrker",
        "-A neighbour report --ini config.ini",
        "-A neighbour report",
        "-A with_options status --timeout 0.1 --template x",
        "-A with_options worker --help",
    ],
)
def test_celery_prints_what_it_prints_without_the_package(arguments, tmp_path):
    """Output and exit status are those of an environment without the package."""
    write_neighbours(tmp_path)
    found = run("celery", *shlex.split(arguments), cwd=tmp_path)
    expected = run_without(*shlex.split(arguments), cwd=tmp_path)
    assert found.stdout == expected.stdout
    assert found.stderr == expected.stderr
    assert found.returncode == expected.returncode


def write_neighbours(folder, broker=None):
    broker = broker or {"broker_url": "memory://"}
    named = {f"celery.{key}": value for key, value in broker.items()}
    settings = extract_celery_settings(named)
    (folder / "neighbour.py").write_text(NEIGHBOUR.format(settings=settings))
    (folder / "with_options.py").write_text(WITH_OPTIONS)


def test_help_has_little_more(tmp_path):
    """``celery --help`` shows three options and two commands more, nothing else."""
    found = run("celery", "--help", cwd=tmp_path)
    expected = run_without("--help", cwd=tmp_path).stdout.split()
    lines = found.stdout.splitlines()
    own = "  inbox  ", "  outbox  "
    others = [line for line in lines if not line.startswith(own)]
    assert len(others) == len(lines) - 2
    words = "\n".join(others).split()
    start, end = words.index("--ini"), words.index("--reload") + 1
    end += words[end:].index("does.") + 1
    assert words[:start] + words[end:] == expected
    options = [word for word in words[start:end] if word.startswith("--")]
    assert options == ["--ini", "--ini-var", "--reload", "--reload"]  # in its help, too
    assert "pyramid_tasks\n" not in found.stdout  # no command of that name


@pytest.mark.parametrize("with_package", [True, False], ids=["with", "without"])
def test_worker_of_another_project(redis_queue, tmp_path, with_package):
    """The worker of a project that does not know of Pyramid runs its tasks."""
    write_neighbours(tmp_path, redis_queue)
    options = ("-A", "neighbour", "worker", "--pool=solo", "-l", "INFO", *QUICK)
    command = ("celery",) if with_package else ("python", "-c", WITHOUT)
    with start(*command, *options, cwd=tmp_path) as worker:
        worker.wait_for(" ready.")
        celery = ("celery", "-A", "neighbour")
        called = run(*celery, "call", "neighbour.add", "-a", "[2,3]", cwd=tmp_path)
        assert called.returncode == 0, called.stderr
        result = run(*celery, "result", called.stdout.strip(), cwd=tmp_path)
        assert result.stdout == "5\n"
        assert "[tasks]\n  . neighbour.add\n" in worker.output
        assert "pyramid" not in worker.output
        assert worker.stop() == 0


def test_shell_of_another_project(tmp_path):
    """A line typed at another project's shell reaches that project."""
    write_neighbours(tmp_path)
    stdin = "import sys; print(app.main, 'pyramid' in sys.modules)\n"
    command = ("celery", "-A", "neighbour", "shell", "--python")
    shell = run(*command, cwd=tmp_path, stdin=stdin, fresh=True)
    assert shell.returncode == 0, shell.stderr
    assert "neighbour False" in shell.stdout


def test_options_of_another_project(tmp_path):
    """A project's own preload options reach its signal."""
    write_neighbours(tmp_path)
    # One that takes such options on every Celery.
    command = ("celery", "-A", "with_options", "status", "--timeout", "0.1")
    status = run(*command, "--template", "fancy", cwd=tmp_path)
    assert "No nodes replied" in status.stderr
    assert "template: fancy" in status.stdout


def pshell_is_broken():
    """Whether Pyramid's own requirements are hidden from the pkg_resources it asks.

    Pyramid 2.0 does, and old versions of setuptools do not find zope.interface under
    the file name that its wheels have now.
    """
    if not version("pyramid").startswith("2.0"):
        return False
    import pkg_resources

    try:
        pkg_resources.require("pyramid")
    except pkg_resources.DistributionNotFound:
        return True
    return False


@pytest.fixture(params=["with [celery:...]", "without"])
def ini(request, write_ini, tmp_path):
    """Return an ini, with and without sections of this package, and a free port."""
    port = free_port()
    text = example_config(
        filesystem_settings(tmp_path),
        more="[celery:emails]\nuse = main\n\n"
        "[celerybeat:often]\ntask = exampleapp.add\nschedule = 1\nargs = [1, 2]\n\n"
        "[celeryroute:exampleapp.add]\nqueue = adding\n",
    )
    if request.param == "without":
        text = text[: text.index("[celery:main]")]
    text += f"\n[server:main]\nuse = egg:waitress#main\nlisten = localhost:{port}\n"
    return write_ini(text), port


def test_pserve(ini, tmp_path):
    """``pserve`` serves the application."""
    path, port = ini
    with (
        serve(path, port, cwd=tmp_path) as url,
        urllib.request.urlopen(f"{url}/result/none", timeout=30) as response,
    ):
        assert json.load(response)["state"] == "PENDING"


@pytest.mark.skipif(
    pshell_is_broken(), reason="pshell of Pyramid 2.0 needs a newer setuptools here"
)
def test_pshell(ini, tmp_path):
    """A line typed at ``pshell`` has the request, and can defer."""
    path, _ = ini
    stdin = "print(request.greet('shell'), request.defer_task('exampleapp.now'))\n"
    shell = run("pshell", "-p", "python", path, cwd=tmp_path, stdin=stdin)
    assert shell.returncode == 0, shell.stderr
    assert "hello shell" in shell.stdout
    assert list((tmp_path / "messages").iterdir())


def test_proutes_and_pviews(ini, tmp_path):
    """``proutes`` lists the routes, and ``pviews`` finds the view of a path."""
    routes = run("proutes", ini[0], cwd=tmp_path)
    assert routes.returncode == 0, routes.stderr
    assert "/defer/{name}" in routes.stdout
    views = run("pviews", ini[0], "/result/1", cwd=tmp_path)
    assert views.returncode == 0, views.stderr
    assert "exampleapp.result" in views.stdout


def test_plain_plaster(ini, tmp_path):
    """Plaster's own look-up of a loader for an ini is not ambiguous."""
    code = (
        "import plaster, sys; loader = plaster.get_loader(sys.argv[1]); "
        "print(type(loader).__module__, *loader.get_sections()[:1])"
    )
    done = run("python", "-c", code, ini[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "plaster_pastedeploy app:main\n"
