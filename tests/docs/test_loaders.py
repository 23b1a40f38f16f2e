"""A worker runs on the formats, the loaders and the factory of the page on them."""

from __future__ import annotations

import json
import re
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documents import Document, shell
from support import Process, as_ini, free_port, run, serve, start

PAGE = Document("docs/howto/loaders.md")
YAML = PAGE.block("YAML", "yaml")
PYPROJECT, TOML = PAGE.blocks("toml", "A loader for TOML")
TOML_LOADER = PAGE.block("A loader for TOML", "python")
OWN = "A loader that makes the Celery application itself"
ENV_ENTRY_POINT, ENV_LOADER = PAGE.block(OWN, "toml"), PAGE.block(OWN, "python")
FACTORY, INI = (
    PAGE.block("A factory for `[celery:NAME]`", each) for each in ("python", "ini")
)

pytestmark = pytest.mark.acceptance

MYAPP = """
from pyramid.config import Configurator
from pyramid_tasks import task


@task
def resize(request, width):
    return [width, request.registry.settings.get("size")]


def defer_resize(request):
    return request.defer_task(resize, 640).id


def configure(settings):
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.scan("myapp")
    config.add_route("resize", "/")
    config.add_view(defer_resize, route_name="resize", renderer="string")
    return config


def main(global_config, **settings):
    return configure({"size": global_config.get("size"), **settings}).make_wsgi_app()
"""
ENTRY_POINT = '[project.entry-points."paste.app_factory"]\nmain = "myapp:main"\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the packages of the page are installed, and myapp."""
    folder = tmp_path_factory.mktemp("packages")
    marker = "[tool.setuptools]\n"
    modules = {
        "tomlconfig": TOML_LOADER,
        "envconfig": ENV_LOADER,
        "myworkers": FACTORY,
        "myapp": MYAPP,
    }
    assert PYPROJECT.count(marker) == PYPROJECT.count('["tomlconfig"]') == 1
    text = PYPROJECT.replace(marker, f"{ENTRY_POINT}\n{ENV_ENTRY_POINT}\n{marker}")
    text = text.replace('["tomlconfig"]', json.dumps(list(modules)))
    (folder / "pyproject.toml").write_text(text)
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    options = "--no-index --no-deps --no-build-isolation --quiet --target=site"
    done = shell(f"python -m pip install {options} .", folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


class Machine:
    """Where the packages are installed, and a broker runs."""

    def __init__(self, folder: Path, site: Path, broker: dict[str, str]) -> None:
        self.folder = folder
        self.broker = broker
        self.env = {"PYTHONPATH": str(site)}

    def write(self, name: str, text: str, line: str) -> None:
        """Write a file of the page, with the broker of this machine.

        A setting of the application is a line of its format.
        """
        pattern = r"^.*celery\.broker_url.*\n.*celery\.result_backend.*\n"
        settings = ""
        for key, value in self.broker.items():
            settings += f"{line}\n".format(key=f"celery.{key}", value=json.dumps(value))
        text, number = re.subn(pattern, lambda _: settings, text, flags=re.MULTILINE)
        assert number == 1
        (self.folder / name).write_text(text)

    @contextmanager
    def worker(self, uri: str, *variables: str) -> Iterator[Process]:
        options = ("--ini", uri, *(f"--ini-var={each}" for each in variables))
        command = ("celery", "-A", "pyramid_tasks.loaders", *options)
        command += ("worker", "--loglevel=INFO")
        # The logging of TOML disables the loggers of all that is imported before it.
        with start(*command, cwd=self.folder, fresh=True, **self.env) as process:
            process.wait_for("ready.")
            yield process
            assert process.stop() == 0

    def celery(self, uri: str, *arguments: str) -> str:
        """Run a command, and return what it prints."""
        done = run("celery", "--ini", uri, *arguments, cwd=self.folder, **self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def resize(self, uri: str) -> str:
        """Defer the task, and return its result."""
        task_id = self.celery(uri, "call", "myapp.resize", "--args=[640]")
        return self.celery(uri, "result", task_id)


@pytest.fixture
def machine(tmp_path: Path, site: Path, redis_queue: dict[str, str]) -> Machine:
    return Machine(tmp_path, site, redis_queue)


def test_yaml(machine: Machine) -> None:
    """A worker and a web process run on one file; the worker's queue is its route."""
    port = free_port()
    text = YAML.replace("port: 6543", f"port: {port}")
    machine.write("config.yaml", text, "  {key}: {value}")
    assert "worker_concurrency: 4" in machine.celery("config.yaml", "report")
    with machine.worker("config.yaml#images"):
        assert machine.resize("config.yaml") == "[640, None]"
    with (
        serve("config.yaml", port, cwd=machine.folder, **machine.env) as url,
        urllib.request.urlopen(url, timeout=30) as response,
    ):
        assert uuid.UUID(response.read().decode())


def test_toml(machine: Machine) -> None:
    """The loader of plaster is all that a worker needs, and the scripts of Pyramid."""
    machine.write("config.toml", TOML, '"{key}" = {value}')
    assert "worker_concurrency: 4" in machine.celery("config.toml", "report")
    with machine.worker("config.toml#images", "size=big") as worker:
        assert machine.resize("config.toml") == "[640, 'big']"
        assert "task myapp.resize" in worker.output.lower()
    routes = run("proutes", "config.toml", cwd=machine.folder, **machine.env)
    assert re.search(r"^resize +/ +", routes.stdout, re.MULTILINE), routes.stderr


def test_environment(machine: Machine) -> None:
    """A loader without a file and without a WSGI application makes a worker."""
    machine.env |= {
        f"MYAPP_CELERY__{key.upper().replace('.', '__')}": value
        for key, value in machine.broker.items()
    }
    machine.env["MYAPP_SIZE"] = "small"
    with machine.worker("env://myapp") as worker:
        assert machine.resize("env://myapp") == "[640, 'small']"
        assert "INFO:celery" in worker.output  # as basicConfig has it


def test_factory(machine: Machine) -> None:
    """The worker takes from the queues that the factory makes of its own key."""
    app = f"[app:main]\nuse = call:myapp:main\n{as_ini(machine.broker)}\n"
    (machine.folder / "config.ini").write_text(app + INI)
    with machine.worker("config.ini") as worker:
        queues = re.findall(r"\.> (\w+) +exchange=", worker.output)
        assert queues == ["acme", "globex"]
        assert "concurrency: 2 " in worker.output
