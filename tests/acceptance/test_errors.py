"""What cannot be loaded ends the command: loudly, plainly, before any broker."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from support import Listener, ini_form, run

pytestmark = pytest.mark.acceptance

before_and_after = pytest.mark.parametrize(
    "after", [False, True], ids=["before", "after"]
)

PASSWORD = "s3cret-of-the-broker"


class Broker(Listener):
    """Something that listens where the broker of an ini should be."""

    @property
    def url(self) -> str:
        return f"redis://user:{PASSWORD}@localhost:{self.port}/0"


@pytest.fixture
def listener() -> Iterator[Broker]:
    """Return what takes the place of the broker, and counts connections."""
    listener = Broker()
    yield listener
    listener.close()


def assert_no_worker(done: CompletedProcess[str]) -> None:
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Connected to" not in output
    assert ".> transport:" not in output
    assert "ready." not in output
    assert PASSWORD not in output


def assert_plain(done: CompletedProcess[str], *texts: str) -> None:
    """Assert one sentence that has the texts, at most after a warning."""
    assert_no_worker(done)
    assert "Traceback" not in done.stderr
    _, found, message = done.stderr.rpartition("Error: ")
    assert found
    for text in texts:
        assert text in message
    assert done.stdout == ""


@pytest.mark.parametrize("target", ["pyramid_tasks.loaders", "pyramid_tasks"])
@pytest.mark.parametrize("command", ["worker", "beat", "report", "call x", "purge -f"])
def test_no_ini(target: str, command: str, tmp_path: Path) -> None:
    """Without ``--ini``, a sentence says what to pass; the exit status is 2."""
    done = run("celery", "-A", target, *command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert_plain(done, "pass --ini config.ini", "CELERY_INI=config.ini")
    assert done.stderr.count("\n") == 1


@before_and_after
def test_empty_ini_option(tmp_path: Path, *, after: bool) -> None:
    """An empty ``--ini``, as of an unset shell variable, is none."""
    done = run(*ini_form("", "worker", after=after), cwd=tmp_path)
    assert_no_worker(done)
    assert "Traceback" not in done.stderr


#: What is wrong: the ini, and what the sentence names. ``{broker}`` is a broker URL.
APP = "[app:main]\nuse = call:exampleapp:main\ncelery.broker_url = {broker}\n"
MISTAKES = {
    "missing section": (
        APP.replace("main]", "other]"),
        ["[celery:main]", "[app:main]", "[app:other]"],
    ),
    "app of the section missing": (
        APP + "[celery:main]\napp = other\n",
        ["config.ini", "other"],
    ),
    "app without pyramid_tasks": (
        APP.replace(":main\n", ":without_tasks\n"),
        ["[app:main]", 'config.include("pyramid_tasks")', "pyramid.includes"],
    ),
    "bad value in [celery:main]": (
        APP + "[celery:main]\nworker_hijack_root_logger = x",
        ["[celery:main]", "worker_hijack_root_logger", "'x'", "boolean"],
    ),
    "bad value in [app:main]": (
        APP + "celery.result_expires = 1 day\n",
        ["[app:main]", "celery.result_expires", "'1 day'", "number"],
    ),
    "value and nested": (
        APP + "celery.broker_transport_options = {{}}\n"
        "celery.broker_transport_options.x = 1\n",
        ["celery.broker_transport_options.x", "celery.broker_transport_options,"],
    ),
    "misspelt broker key": (
        APP.replace("broker_url", "brokr_url"),
        ["no broker", "celery.broker_url", "[celery:NAME]"],
    ),
    "no broker": (
        "[app:main]\nuse = call:exampleapp:main\n[celery:main]\nworker_concurrency=1\n",
        ["no broker", "celery.broker_url"],
    ),
    "misspelt transport": (
        APP.replace("{broker}", "rediss-typo://:" + PASSWORD + "@localhost"),
        ["The broker rediss-typo://", "cannot be used", "No such transport"],
    ),
    "misspelt result backend": (
        APP + "celery.result_backend = reddis://:" + PASSWORD + "@localhost\n",
        ["The result backend reddis://", "cannot be used"],
    ),
    "folder of the results missing": (
        APP + "celery.result_backend = file:///no/such/folder\n",
        ["The result backend file:///no/such/folder", "cannot be used"],
    ),
    "misspelt delivery": (
        APP + "pyramid_tasks.delivery = imediate\n",
        ["pyramid_tasks.delivery = imediate", "immediate"],
    ),
    "bad number of processes": (
        APP + "[celery:main]\nworker_concurrency = two\n",
        ["[celery:main]", "worker_concurrency", "'two'", "whole number"],
    ),
    "scan without an include": (
        APP.replace("exampleapp:main", "brokenapp:not_included"),
        ["exampleapp.", " is a task", 'config.include("pyramid_tasks")'],
    ),
    "both [celery] and [celery:main]": (
        APP + "[celery]\n[celery:main]\n",
        ["[celery]", "[celery:main]", "Keep one"],
    ),
    "unset variable": (
        APP + "[celery:main]\nworker_concurrency = %(threads)s\n",
        ["[celery:main]", "worker_concurrency", "--ini-var threads="],
    ),
    "bad percent sign": (
        APP.replace("{broker}", "redis://user:100%" + PASSWORD + "@localhost/0"),
        ["[app:main]", "celery.broker_url", "%%"],
    ),
    "bad percent sign in [celery:main]": (
        APP + "[celery:main]\nbroker_url = redis://u:100%" + PASSWORD + "@localhost/0",
        ["[celery:main]", "broker_url", "%%"],
    ),
    "no section header": ("broker_url = {broker}\n", ["line 1", "[section]"]),
    "not an ini": ("[app:main]\nuse call\n", ["line 2"]),
    "bad percent sign in [DEFAULT]": (
        "[DEFAULT]\nurl = redis://user:100%" + PASSWORD + "@localhost/0\n" + APP,
        ["config.ini", "url", "%%"],
    ),
    "bad percent sign in [DEFAULT], with [loggers]": (
        "[DEFAULT]\nurl = redis://user:100%"
        + PASSWORD
        + "@localhost/0\n"
        + APP
        + "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n"
        "[logger_root]\nhandlers=\nlevel=INFO\n",
        ["config.ini", "url", "%%"],
    ),
    "dictionary that is not JSON": (
        APP + "celery.broker_transport_options = {{'password': '" + PASSWORD + "'}}\n",
        ["[app:main]", "celery.broker_transport_options", "dictionary"],
    ),
    "broker URL where a dictionary should be": (
        APP + "celery.broker_transport_options = redis://:" + PASSWORD + "@localhost\n",
        ["[app:main]", "celery.broker_transport_options", "dictionary"],
    ),
    "package of use missing": (
        APP.replace("call:exampleapp:main", "egg:no-such-package"),
        ["config.ini", "no-such-package"],
    ),
    "module of use missing": (
        APP.replace("call:exampleapp:main", "call:no_such_module:main"),
        ["config.ini", "no_such_module"],
    ),
    "beat entry without a task": (
        APP + "[celerybeat:nightly]\nschedule = 10\n",
        ["[celerybeat:nightly]", "task is missing"],
    ),
    "beat entry with a bad schedule": (
        APP + "[celerybeat:nightly]\ntask = exampleapp.add\nschedule = often\n",
        ["[celerybeat:nightly]", "'often'", "cron expression"],
    ),
    "base_url without a scheme": (
        APP + "pyramid_tasks.base_url = example.com\n",
        ["[app:main]", "pyramid_tasks.base_url = example.com", "https://example.com"],
    ),
    "context that is not there": (
        APP + "pyramid_tasks.context = host locales\n",
        ["[app:main]", "pyramid_tasks.context = locales", "Did you mean locale?"],
    ),
    "beat entry with an unknown task": (
        APP + "[celerybeat:nightly]\ntask = exampleapp.ad\nschedule = 10\n",
        ["[celerybeat:nightly]", "'exampleapp.ad'", "'exampleapp.add'"],
    ),
    "broken [loggers]": (
        APP + "[loggers]\nkeys = root, missing\n[handlers]\nkeys=\n[formatters]\nkeys=",
        ["config.ini", "logger"],
    ),
    "[loggers] without [handlers]": (
        APP + "[loggers]\nkeys = root\n[logger_root]\nhandlers =\nlevel = INFO\n",
        ["config.ini"],
    ),
    "factory returns something else": (
        APP + "[celery:main]\nuse = call:brokenapp:not_celery\n",
        ["[celery:main]", "not a Celery application"],
    ),
    "task without a request": (
        APP.replace("exampleapp:main", "brokenapp:scanned"),
        ["'no_request'", "(request, ...)"],
    ),
}


def by_turns(names: Iterable[str]) -> list[Any]:
    """Return parameters with the option before and after the command, by turns."""
    places = itertools.cycle([("before", False), ("after", True)])
    return [
        pytest.param(name, after, id=f"{name}-{place}")
        for name, (place, after) in zip(names, places, strict=False)
    ]


@pytest.mark.parametrize(("mistake", "after"), by_turns(MISTAKES))
def test_mistake_in_ini(
    mistake: str,
    write_ini: Callable[..., Path],
    listener: Broker,
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """A mistake in the file is one sentence that names where it is; no connection."""
    text, names = MISTAKES[mistake]
    write_ini(text.format(broker=listener.url))
    done = run(*ini_form("config.ini", "worker", after=after), cwd=tmp_path)
    assert_plain(done, *names)
    assert listener.connections == 0


@before_and_after
@pytest.mark.parametrize("command", ["beat", "worker -B", "call exampleapp.add"])
def test_mistake_ends_every_command(
    command: str,
    write_ini: Callable[..., Path],
    listener: Broker,
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """What sends or schedules tasks ends with the same sentence as a worker."""
    text, names = MISTAKES["bad value in [app:main]"]
    write_ini(text.format(broker=listener.url))
    done = run(*ini_form("config.ini", *command.split(), after=after), cwd=tmp_path)
    assert_plain(done, *names)
    assert listener.connections == 0


@before_and_after
@pytest.mark.parametrize("uri", ["missing.ini", "missing.ini#emails", "no/such/x.ini"])
def test_missing_file(uri: str, tmp_path: Path, *, after: bool) -> None:
    """A file that is not there is named, in one line."""
    done = run(*ini_form(uri, "worker", after=after), cwd=tmp_path)
    assert_plain(done, uri.partition("#")[0], "no such file")
    assert done.stderr.count("\n") == 1


def test_missing_file_of_environment(tmp_path: Path) -> None:
    """A file that ``CELERY_INI`` names and is not there is named, too."""
    command = ("celery", "-A", "pyramid_tasks.loaders", "worker")
    done = run(*command, cwd=tmp_path, CELERY_INI="missing.ini")
    assert_plain(done, "missing.ini", "no such file")


@before_and_after
def test_missing_section_of_fragment(
    write_example: Callable[..., Path], tmp_path: Path, *, after: bool
) -> None:
    """A section that ``#name`` asks for must be there."""
    write_example()
    done = run(*ini_form("config.ini#emails", "worker", after=after), cwd=tmp_path)
    assert_plain(done, "[celery:emails]", "[app:emails]", "[celery:main]")


@before_and_after
def test_format_without_loader(tmp_path: Path, *, after: bool) -> None:
    """A file of a format that no installed loader reads is an error."""
    (tmp_path / "config.toml").write_text("[app]\n")
    done = run(*ini_form("config.toml", "worker", after=after), cwd=tmp_path)
    assert_plain(done, "config.toml", "loader")


#: An application with an error, and the last line of its traceback.
BROKEN = {
    "attribute_error": "AttributeError: 'dict' object has no attribute",
    "import_error": "ModuleNotFoundError: No module named 'no_such_module'",
    "key_error": "KeyError: 'no.such.setting'",
    "lookup_error": "LookupError: an error of the application itself",
    "configured": "ValueError: an error of the application itself",
}


@pytest.mark.parametrize("section", ["", "[celery:main]\n"], ids=["app", "celery"])
@pytest.mark.parametrize(("factory", "after"), by_turns(BROKEN))
def test_error_of_application_keeps_traceback(
    factory: str,
    section: str,
    write_ini: Callable[..., Path],
    listener: Broker,
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """An error in the application's own code is shown whole; no worker, no broker."""
    text = APP.replace("exampleapp:main", f"brokenapp:{factory}") + section
    write_ini(text.format(broker=listener.url))
    done = run(*ini_form("config.ini", "worker", after=after), cwd=tmp_path)
    assert_no_worker(done)
    assert "Traceback (most recent call last)" in done.stderr
    assert re.search(r'brokenapp\.py", line \d+', done.stderr)
    assert BROKEN[factory] in done.stderr
    assert "config.ini: the application could not be loaded" in done.stderr
    assert listener.connections == 0


@before_and_after
def test_application_that_exits(
    write_ini: Callable[..., Path], listener: Broker, tmp_path: Path, *, after: bool
) -> None:
    """An application that ends the process as it loads ends the command."""
    text = APP.replace("exampleapp:main", "brokenapp:system_exit")
    write_ini(text.format(broker=listener.url))
    done = run(*ini_form("config.ini", "worker", after=after), cwd=tmp_path)
    assert "ready." not in done.stderr
    assert listener.connections == 0


def test_worker_would_connect_to_listener(
    write_ini: Callable[..., Path], listener: Broker, tmp_path: Path
) -> None:
    """Without a mistake, the broker of these tests is connected to."""
    write_ini(APP.format(broker=listener.url))
    command = ini_form("config.ini", "call", "exampleapp.add", after=False)
    done = run(*command, cwd=tmp_path)
    assert done.returncode != 0
    assert listener.connections > 0
    assert PASSWORD not in done.stdout + done.stderr
