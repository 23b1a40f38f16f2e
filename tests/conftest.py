"""Fixtures of all tests: applications, ini files, and the services on this machine."""

import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import installed
import pytest
from browser import Browser, Chromium, start_chromium
from pyramid.config import Configurator
from pyramid.threadlocal import manager
from support import APPS, example_config, filesystem_settings, need_service, unique

sys.path.insert(0, str(APPS))
installed.read_once()

#: The type of a function that writes an ini file and returns its path.
Write = Callable[..., Path]

#: What runs on this machine, and is a parameter of the tests that need it.
SERVERS = {"mariadb", "postgresql", "rabbitmq", "redis"}

# A shell has what it starts in the background ignore Ctrl-C, and all that this starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let tests start workers as root without a warning."""
    line = "ignore:You're running the worker with superuser"
    config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Mark the tests that have a server as a parameter; begin with the slow ones."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        values = callspec.params.values() if callspec else ()
        if SERVERS.intersection(value for value in values if isinstance(value, str)):
            item.add_marker("server")
    worker = getattr(config, "workerinput", {"workercount": 1})
    items[:] = _slow_first(items, worker["workercount"])


def _slow_first(items: list[pytest.Item], parts: int) -> Iterator[pytest.Item]:
    """Give the tests in an order in which each equal part begins with slow ones.

    A process that runs tests begins with its part. When it has run its part, it takes
    from the end of another one, where only short tests are left.
    """
    slow = [item for item in items if item.get_closest_marker("acceptance")]
    quick = [item for item in items if not item.get_closest_marker("acceptance")]
    for part in range(parts):
        for kind in slow, quick:
            begin, end = (len(kind) * each // parts for each in (part, part + 1))
            yield from kind[begin:end]


def pytest_sessionstart() -> None:
    """Look for no garbage among what modules and tests are made of: it all stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Undo what an embedded worker does to logging."""
    level, handlers = logging.root.level, list(logging.root.handlers)
    yield
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture
def threadlocals_stay() -> Iterator[None]:
    """Fail a test that does not leave the threadlocals as it found them."""
    before = list(manager.stack)
    yield
    assert manager.stack == before


@pytest.fixture
def configure() -> Callable[..., Configurator]:
    """Return a function that makes a Configurator which includes the package."""

    def configure(**settings: object) -> Configurator:
        config = Configurator(settings=settings)
        config.include("pyramid_tasks")
        return config

    return configure


@pytest.fixture
def eager(configure: Callable[..., Configurator]) -> Configurator:
    """Return a Configurator whose tasks run at once, in this process."""
    return configure(
        **{"celery.task_always_eager": True, "celery.task_eager_propagates": True}
    )


@pytest.fixture
def write_ini(tmp_path: Path) -> Write:
    """Return a function that writes an ini file and returns its path."""

    def write_ini(text: str, name: str = "config.ini") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_ini


def redis_settings() -> dict[str, str]:
    """Return settings for Redis under a prefix of their own."""
    prefix = unique()
    return {
        "broker_url": "redis://localhost:6379/0",
        "broker_transport_options.global_keyprefix": f"{prefix}:",
        "result_backend": "redis://localhost:6379/0",
        "result_backend_transport_options.global_keyprefix": f"{prefix}:",
        "task_default_queue": prefix,
    }


def rabbitmq_settings() -> dict[str, str]:
    """Return settings for RabbitMQ with names of their own; results in Redis."""
    name = unique()
    return redis_settings() | {
        "broker_url": "amqp://guest:guest@localhost:5672//",
        "broker_transport_options.global_keyprefix": "null",
        "task_default_queue": name,
        "task_default_exchange": name,
        "control_exchange": name,
        "event_exchange": f"{name}ev",
    }


@pytest.fixture(params=["filesystem", "redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the Celery settings for each broker, with results; cleaned up after."""
    if request.param == "filesystem":
        yield filesystem_settings(tmp_path)
        return
    need_service("Redis", 6379, "redis-server --daemonize yes")
    if request.param == "redis":
        settings = redis_settings()
        yield settings
    else:
        need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
        settings = rabbitmq_settings()
        yield settings
        _delete_queue(settings["broker_url"], settings["task_default_queue"])
    _delete_keys(settings["result_backend_transport_options.global_keyprefix"])


def _delete_queue(url: str, name: str) -> None:
    from kombu import Connection

    with Connection(url) as connection, connection.channel() as channel:
        channel.queue_delete(name)
        channel.exchange_delete(name)


def _delete_keys(prefix: str) -> None:
    from redis import Redis

    for key in Redis().scan_iter(f"{prefix}*"):
        Redis().delete(key)


@pytest.fixture
def example_ini(write_ini: Write, broker: dict[str, str]) -> Path:
    """Return an ini for the example application on each broker."""
    return write_ini(example_config(broker))


@pytest.fixture
def write_example(write_ini: Write, tmp_path: Path) -> Write:
    """Return a function that writes an ``example_config``, with a folder as broker."""

    def write_example(name: str = "config.ini", **parts: Any) -> Path:
        parts = {"broker": filesystem_settings(tmp_path)} | parts
        return write_ini(example_config(**parts), name)

    return write_example


@pytest.fixture(scope="module")
def redis_broker() -> Iterator[dict[str, str]]:
    """Return the Celery settings for Redis, for the tests of one module."""
    need_service("Redis", 6379, "redis-server --daemonize yes")
    settings = redis_settings()
    yield settings
    _delete_keys(settings["result_backend_transport_options.global_keyprefix"])


@pytest.fixture
def redis_queue(redis_broker: dict[str, str]) -> dict[str, str]:
    """Return the Celery settings for Redis, with a queue for one test.

    For tests that pass messages between processes: on the filesystem broker, Kombu
    (5.3 to 5.7) can read the file of a message before the message is in it, which
    ends the worker.
    """
    return redis_broker | {"task_default_queue": unique()}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Start Chromium for the tests of one module."""
    with start_chromium() as chromium:
        yield chromium


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """Return a browser of one test; errors of its pages fail the test."""
    browser = Browser(chromium)
    yield browser
    browser.close()
