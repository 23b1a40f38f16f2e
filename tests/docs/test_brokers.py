"""Each set-up of the page about brokers, on servers that are started for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import pytest
from celery import Celery, chord
from documents import Document
from kombu.exceptions import OperationalError
from servers import certificate, rabbitmq_server, redis_sentinel, redis_server
from support import DEADLINE, Process, free_port, start_worker, unique

from pyramid_tasks.loaders.opening import open_app

PAGE = Document("docs/howto/brokers.md")
(ACL,) = PAGE.blocks("text")
TLS, TLS_IN_URL = PAGE.blocks("ini", "Redis with TLS")
USER = PAGE.block("Redis with a user of its own", "ini")
SOCKET = PAGE.block("Redis with a UNIX socket", "ini")
SENTINEL = PAGE.block("Redis with Sentinel", "ini")
TIMEOUTS = PAGE.block("Redis: timeouts", "ini")
LOST = PAGE.block("What can be lost, and when", "ini")
AMQPS = PAGE.block("RabbitMQ with TLS", "ini")
HOSTS = PAGE.block("RabbitMQ with several hosts", "ini")
QUORUM = PAGE.block("RabbitMQ with quorum queues", "ini")
PRIORITIES = PAGE.block("RabbitMQ with priorities", "ini")
PLAIN = """
celery.broker_url = redis://:s3cret@redis.example.com:6379/0
celery.result_backend = redis://:s3cret@redis.example.com:6379/0
"""

pytestmark = [pytest.mark.acceptance, pytest.mark.server]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder whose name is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="brokers"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[dict[str, str]]:
    """Return what stands for the words of the page: Redis with a sentinel."""
    cert, key = certificate(folder)
    acl, sock, tls_port = folder / "acl", folder / "redis.sock", free_port()
    acl.write_text(f"user default on >s3cret ~* &* +@all\n{ACL}")
    options = f"--tls-port {tls_port} --tls-cert-file {cert} --tls-key-file {key}"
    options += f" --tls-ca-cert-file {cert} --tls-auth-clients no --aclfile {acl}"
    options += f" --unixsocket {sock}"
    monitor = "monitor mymaster 127.0.0.1"
    password = "auth-pass mymaster s3cret"
    with (
        redis_server(folder, *options.split()) as server,
        redis_sentinel(folder, f"{monitor} {server.port} 1", password) as sentinel,
    ):
        yield {
            "redis.example.com:6380": f"localhost:{tls_port}",
            "redis.example.com:6379": f"localhost:{server.port}",
            "/etc/myapp/ca.pem": str(cert),
            "redis+socket://": "redis+socket://:s3cret@",
            "/run/redis/redis.sock": str(sock),
            "sentinel1:26379": f"localhost:{free_port()}",  # one is down
            "sentinel2:26379": f"localhost:{sentinel.port}",
        }


def load(folder: Path, lines: str, here: dict[str, str]) -> Celery:
    """Load an application with lines of the page, changed for this machine."""
    for word, value in here.items():
        lines = lines.replace(word, value)
    ini = folder / "config.ini"
    app = "[app:main]\nuse = call:exampleapp:main\n"
    ini.write_text(app + lines.replace("[app:main]", ""))
    return open_app(str(ini))


@contextmanager
def working(folder: Path) -> Iterator[Process]:
    """Start a worker of the application that was loaded last."""
    quick = ("-P", "solo", "--without-gossip", "--without-mingle")
    with start_worker("config.ini", *quick, cwd=folder) as worker:
        yield worker


def own_queue() -> str:
    return f"celery.task_default_queue = {unique()}\n"


def add(app: Celery) -> None:
    assert app.tasks["exampleapp.add"].delay(1, 2).get(timeout=DEADLINE) == 3


def with_chord(app: Celery) -> None:
    task = app.tasks["exampleapp.add"]
    tasks = chord([task.s([1], [2]), task.s([3], [4])], task.s([[5]]))
    result = tasks.apply_async().get(timeout=DEADLINE)
    assert result == [[1, 2], [3, 4], [5]]
    assert app.control.ping(timeout=10, limit=1)


@pytest.mark.parametrize(
    ("lines", "check"),
    [
        pytest.param(TLS, add, id="tls"),
        pytest.param(TLS_IN_URL, add, id="tls-in-url"),
        pytest.param(USER, with_chord, id="user"),
        pytest.param(SOCKET, add, id="socket"),
        pytest.param(SENTINEL + TIMEOUTS, add, id="sentinel"),
        pytest.param(PLAIN + LOST, add, id="lost"),
    ],
)
def test_redis(
    tmp_path: Path, redis: dict[str, str], lines: str, check: Callable[[Celery], None]
) -> None:
    """A task is sent and run, and its result comes back."""
    app = load(tmp_path, lines, redis)
    with working(tmp_path):
        check(app)


def test_redis_with_another_certificate(tmp_path: Path, redis: dict[str, str]) -> None:
    """A server that nobody trusts is refused, however the options are written."""
    other, _ = certificate(tmp_path)
    for lines in TLS, TLS_IN_URL:
        app = load(tmp_path, lines, redis | {"/etc/myapp/ca.pem": str(other)})
        with pytest.raises(OperationalError, match="(?i)certificate"):
            app.connection_for_write().default_channel  # noqa: B018 connects
        with pytest.raises(app.backend.connection_errors, match="(?i)certificate"):
            app.backend.client.ping()


def test_rabbitmq(tmp_path: Path) -> None:
    """So with RabbitMQ: TLS, a host that is down, priorities and a delivery limit."""
    # One test, as a node takes longer to start than all the rest.
    cert, key = certificate(tmp_path)
    port, tls_port = free_port(), free_port()
    config = f"""
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
default_user = myapp
default_pass = s3cret
default_vhost = myapp
"""
    here = {
        "rabbit.example.com:5671": f"localhost:{tls_port}",
        "rabbit.example.com": "localhost",
        "rabbit1.example.com:5672": f"localhost:{free_port()}",
        "rabbit2.example.com:5672": f"localhost:{port}",
        "/etc/myapp/ca.pem": str(cert),
    }
    results = "celery.result_backend = rpc://\n"
    plain = f"{results}celery.broker_url = amqp://myapp:s3cret@localhost:{port}/myapp\n"

    with rabbitmq_server(tmp_path, config, port):
        for lines in AMQPS, HOSTS:
            app = load(tmp_path, lines + results + own_queue(), here)
            with working(tmp_path):
                add(app)
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            assert connection.connection.confirm_publish

        app = load(tmp_path, PRIORITIES + plain + own_queue(), here)
        task = app.tasks["exampleapp.add"]
        low, high = (task.apply_async((1, 2), priority=number) for number in (1, 10))
        with working(tmp_path) as worker:
            assert low.get(timeout=DEADLINE) == high.get(timeout=DEADLINE) == 3
            assert worker.output.index(high.id) < worker.output.index(low.id)

        if celery.VERSION < (5, 5):
            return
        app = load(tmp_path, QUORUM + plain, here)
        with working(tmp_path) as worker:
            task_id = app.tasks["exampleapp.end"].delay("requeue").id
            received = f"[{task_id}] received"
            worker.wait_until(lambda: worker.output.count(received) == 6)
            add(app)
            assert worker.output.count(received) == 6
