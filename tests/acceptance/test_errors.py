"""What cannot be loaded ends the command: loudly, plainly, before any broker."""

import itertools
import re

import pytest
from support import Listener, ini_form, logging_sections, run

pytestmark = pytest.mark.acceptance

before_and_after = pytest.mark.parametrize(
    "after", [False, True], ids=["before", "after"]
)

PASSWORD = "s3cret-of-the-broker"


@pytest.fixture
def listener():
    """Return what takes the place of the broker, and counts connections."""
    listener = Listener()
    yield listener
    listener.close()


def assert_no_worker(done):
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Connected to" not in output
    assert ".> transport:" not in output
    assert "ready." not in output
    assert PASSWORD not in output


def assert_plain(done, *texts):
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
def test_no_ini(target, command, tmp_path):
    """Without ``--ini``, a sentence says what to pass; the exit status is 2."""
    done = run("celery", "-A", target, *command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert_plain(done, "pass --ini config.ini", "CELERY_INI=config.ini")
    assert done.stderr.count("\n") == 1


#: What is wrong: the ini, and what the sentence names. ``{port}`` is the broker's.
#: Mistakes that the tests of the loaders have are here once for each kind of error.
BROKER = f"redis://user:{PASSWORD}@localhost:{{port}}/0"
APP = f"[app:main]\nuse = call:exampleapp:main\ncelery.broker_url = {BROKER}\n"
PERCENT_SIGN = f"[DEFAULT]\nurl = redis://user:100%{PASSWORD}@localhost/0\n{APP}"
MISTAKES = {
    "missing section": (
        APP.replace("main]", "other]"),
        ["[celery:main]", "[app:main]", "[app:other]"],
    ),
    "bad value in [celery:main]": (
        APP + "[celery:main]\nworker_hijack_root_logger = x",
        ["[celery:main]", "worker_hijack_root_logger", "'x'", "boolean"],
    ),
    "bad value in [app:main]": (
        APP + "celery.result_expires = 1 day\n",
        ["[app:main]", "celery.result_expires", "'1 day'", "number"],
    ),
    "misspelt broker key": (
        APP.replace("broker_url", "brokr_url"),
        ["no broker", "celery.broker_url", "[celery:NAME]"],
    ),
    "misspelt transport": (
        APP.replace("redis://", "rediss-typo://"),
        ["The broker rediss-typo://", "cannot be used", "No such transport"],
    ),
    "misspelt result backend": (
        APP + f"celery.result_backend = reddis://:{PASSWORD}@localhost\n",
        ["The result backend reddis://", "cannot be used"],
    ),
    "folder of the results missing": (
        APP + "celery.result_backend = file:///no/such/folder\n",
        ["The result backend file:///no/such/folder", "cannot be used"],
    ),
    "scan without an include": (
        APP.replace("exampleapp:main", "failing:not_included"),
        ["exampleapp.", " is a task", 'config.include("pyramid_tasks")'],
    ),
    "bad percent sign in [DEFAULT]": (PERCENT_SIGN, ["config.ini", "url", "%%"]),
    "bad percent sign in [DEFAULT], with [loggers]": (
        PERCENT_SIGN + logging_sections(),
        ["config.ini", "url", "%%"],
    ),
    "broker URL where a dictionary should be": (
        APP + f"celery.broker_transport_options = redis://:{PASSWORD}@localhost\n",
        ["[app:main]", "celery.broker_transport_options", "dictionary"],
    ),
    "beat entry with an unknown task": (
        APP + "[celerybeat:nightly]\ntask = exampleapp.ad\nschedule = 10\n",
        ["[celerybeat:nightly]", "'exampleapp.ad'", "'exampleapp.add'"],
    ),
    "broken [loggers]": (
        APP + "[loggers]\nkeys = root, missing\n[handlers]\nkeys=\n[formatters]\nkeys=",
        ["config.ini", "logger"],
    ),
    "task without a request": (
        APP.replace("exampleapp:main", "failing:scanned"),
        ["'no_request'", "(request, ...)"],
    ),
}


#: Whether ``--ini`` is after the command, in a long table.
BY_TURNS = itertools.cycle([False, True])


@pytest.fixture
def end(write_ini, listener, tmp_path):
    """Return a function that runs a command to its end, without a connection."""

    def end(text, command, after):
        write_ini(text.format(port=listener.port))
        done = run(*ini_form("config.ini", *command.split(), after=after), cwd=tmp_path)
        assert listener.connections == 0
        return done

    return end


@pytest.mark.parametrize(("mistake", "after"), [*zip(MISTAKES, BY_TURNS, strict=False)])
def test_mistake_in_ini(mistake, end, after):
    """A mistake in the file is one sentence that names where it is; no connection."""
    text, names = MISTAKES[mistake]
    assert_plain(end(text, "worker", after), *names)


@before_and_after
@pytest.mark.parametrize("command", ["beat", "worker -B", "call exampleapp.add"])
def test_mistake_ends_every_command(command, end, after):
    """What sends or schedules tasks ends with the same sentence as a worker."""
    text, names = MISTAKES["bad value in [app:main]"]
    assert_plain(end(text, command, after), *names)


@before_and_after
@pytest.mark.parametrize(
    ("uri", "texts"),
    [
        ("missing.ini", ["missing.ini", "no such file"]),
        ("missing.ini#emails", ["missing.ini", "no such file"]),
        ("no/such/x.ini", ["no/such/x.ini", "no such file"]),
        ("config.ini#emails", ["[celery:emails]", "[app:emails]", "[celery:main]"]),
        ("config.toml", ["config.toml", "loader"]),
        ("", ["pass --ini config.ini"]),  # as of an unset shell variable
    ],
)
def test_what_is_not_there(uri, texts, write_example, tmp_path, after):
    """A missing file, section or loader of a format is named, in one line."""
    write_example()
    (tmp_path / "config.toml").write_text("[app]\n")
    done = run(*ini_form(uri, "worker", after=after), cwd=tmp_path)
    assert_plain(done, *texts)
    assert done.stderr.count("\n") == 1


def test_missing_file_of_environment(tmp_path):
    """A file that ``CELERY_INI`` names and is not there is named, too."""
    command = ("celery", "-A", "pyramid_tasks.loaders", "worker")
    done = run(*command, cwd=tmp_path, CELERY_INI="missing.ini")
    assert_plain(done, "missing.ini", "no such file")


#: An application with an error, and the last line of its traceback.
BROKEN = {
    "attribute_error": "AttributeError: 'NoneType' object has no attribute",
    "import_error": "ModuleNotFoundError: No module named 'missing_dependency'",
    "key_error": "KeyError: 'no such setting'",
    "lookup_error": "LookupError: of the application",
    "configured": "ValueError: an error of the application itself",
}


@pytest.mark.parametrize("section", ["", "[celery:main]\n"], ids=["app", "celery"])
@pytest.mark.parametrize(("factory", "after"), [*zip(BROKEN, BY_TURNS, strict=False)])
def test_error_of_application_keeps_traceback(factory, section, end, after):
    """An error in the application's own code is shown whole; no worker, no broker."""
    text = APP.replace("exampleapp:main", f"failing:{factory}")
    done = end(text + section, "worker", after)
    assert_no_worker(done)
    assert "Traceback (most recent call last)" in done.stderr
    assert re.search(r'failing\.py", line \d+', done.stderr)
    assert BROKEN[factory] in done.stderr
    assert "config.ini: the application could not be loaded" in done.stderr


@before_and_after
def test_application_that_exits(end, after):
    """An application that ends the process as it loads ends the command."""
    done = end(APP.replace("exampleapp:main", "failing:system_exit"), "worker", after)
    assert "ready." not in done.stderr


def test_worker_would_connect_to_listener(write_ini, listener, tmp_path):
    """Without a mistake, the broker of these tests is connected to."""
    write_ini(APP.format(port=listener.port))
    done = run(*ini_form("config.ini", "call", "exampleapp.add"), cwd=tmp_path)
    assert done.returncode != 0
    assert listener.connections > 0
    assert PASSWORD not in done.stdout + done.stderr
