"""The errors of the package: their root, their messages, and their way to others."""

from __future__ import annotations

import inspect
import pickle

import pytest
from celery import Celery
from celery.backends.base import Backend
from celery.exceptions import NotRegistered
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps, loads
from pyramid.exceptions import ConfigurationError

from pyramid_tasks import exceptions
from pyramid_tasks.exceptions import PyramidTasksError

# For each class: its arguments, its message, its attributes, and what else it is.
ERRORS = {
    "PyramidTasksError": (("a",), "a", {}, Exception),
    "SettingError": (
        ("celery.x", "= 1 is wrong.", "a.ini, [app:main]"),
        "a.ini, [app:main]: celery.x = 1 is wrong.",
        {"key": "celery.x", "problem": "= 1 is wrong.", "source": "a.ini, [app:main]"},
        ConfigurationError,
    ),
    "UnknownSetting": (
        ("celery.x", "is unknown.", "celery.y"),
        "celery.x is unknown. Did you mean celery.y?",
        {"key": "celery.x", "nearest": "celery.y", "source": None},
        ConfigurationError,
    ),
    "TaskError": (("a",), "a", {}, ConfigurationError),
    "ForkSafetyError": (("a",), "a", {}, ConfigurationError),
    "TaskNotRegistered": (
        ("ad", "add"),
        "No task 'ad' is registered in this application. Did you mean 'add'?",
        {"task": "ad", "nearest": "add"},
        NotRegistered,
    ),
    "AmbiguousTask": (
        ("add", ["a", "b"]),
        "'add' is registered under several names: 'a', 'b'. Give one.",
        {"task": "add", "names": ["a", "b"]},
        LookupError,
    ),
    "DeferError": (("a",), "a", {}, TypeError),
    "BrokerUnavailable": (
        ("redis://", TimeoutError("timed out")),
        (
            "The broker redis:// cannot be reached (timed out); the transaction that "
            "defers a task is aborted, as its task could not be sent."
        ),
        {"broker": "redis://", "reason": "timed out"},
        OperationalError,
    ),
    "ResultNotReady": (
        ("1",),
        (
            "The task 1 is sent when the transaction commits, so waiting for its "
            "result before that would never end. Commit first, or defer it with "
            "delivery='immediate'. In a test that captures tasks, run it first."
        ),
        {"task_id": "1"},
        RuntimeError,
    ),
    "OutboxError": (("a",), "a", {}, RuntimeError),
    "OutboxTableMissing": (
        ("outbox", "sqlite://"),
        (
            "The database sqlite:// has no table outbox. Make it with celery --ini "
            "FILE outbox create, where FILE is your ini, or in a migration. In tests, "
            "declare it with "
            "pyramid_tasks.contrib.outbox_table.outbox_table(Base.metadata), and call "
            "Base.metadata.create_all(engine)."
        ),
        {"table": "outbox", "database": "sqlite://"},
        LookupError,
    ),
    "CoroutineError": (("a",), "a", {}, RuntimeError),
    "CaptureError": (("a",), "a", {}, RuntimeError),
    "LoadError": (("a", "a.ini"), "a", {"config_uri": "a.ini"}, LookupError),
    "ConfigFileNotFound": (("a", "b"), "a", {"config_uri": "b"}, FileNotFoundError),
}


def test_every_error_is_tried():
    """The table of these tests has all errors of the package."""
    classes = [
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    ]
    assert classes == list(ERRORS)


def carried(error):
    """Return an error as pickle makes it again, and as a result backend does."""
    backend = Backend(Celery(set_as_current=False))
    as_json = loads(dumps(backend.prepare_exception(error, serializer="json")))
    return pickle.loads(pickle.dumps(error)), backend.exception_to_python(as_json)


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    """An error has its message and attributes, also when pickle or JSON carried it."""
    args, message, attributes, base = ERRORS[name]
    error = getattr(exceptions, name)(*args)
    for one in (error, *carried(error)):
        assert type(one) is type(error)
        assert isinstance(one, PyramidTasksError)
        assert isinstance(one, base)
        assert str(one) == message
        assert vars(one) == vars(error)
        assert {key: getattr(one, key) for key in attributes} == attributes


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((False,), "The database sqlite:// has no schema app: make the schema"),
        ((True, ("a", "b")), "in the schema a and in b: set"),
    ],
)
def test_outbox_table_in_a_schema(args, words):
    """The error about a schema says the same when pickle or JSON has carried it."""
    error = exceptions.OutboxTableMissing("outbox", "sqlite://", "app", *args)
    assert words in str(error)
    for one in carried(error):
        assert vars(one) == vars(error)


@pytest.mark.parametrize(
    "name", [each for each in ERRORS if "__init__" in vars(getattr(exceptions, each))]
)
def test_error_made_by_keywords(name):
    """An error that was made with keywords can be carried as well."""
    make = getattr(exceptions, name)
    error = make(**inspect.signature(make).bind(*ERRORS[name][0]).arguments)
    for one in carried(error):
        assert str(one) == str(error) == ERRORS[name][1]
        assert vars(one) == vars(error)


def test_what_a_setting_error_may_lack():
    """A loader adds the source later, to pickles too; not each name has a near one."""
    error = exceptions.SettingError("celery.x", "is wrong.")
    assert str(error) == "celery.x is wrong."
    error.source = "a.ini"
    assert str(pickle.loads(pickle.dumps(error))) == "a.ini: celery.x is wrong."
    error = exceptions.UnknownSetting("celery.x", "is unknown.", None)
    assert str(error) == "celery.x is unknown."


def test_task_not_registered():
    """Without a similar name, the message says how to register; a function is named."""
    assert str(exceptions.TaskNotRegistered(test_error)) == (
        f"No task '{__name__}.test_error' is registered in this application. Use "
        "config.register_task(), or @pyramid_tasks.task and config.scan()."
    )
    assert repr(exceptions.TaskNotRegistered("a")) == "TaskNotRegistered('a', None)"
