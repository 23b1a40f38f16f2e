"""Servers that a test starts for itself, on free ports, and may stop and restart."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from support import (
    DEADLINE,
    free_port,
    listens,
    need_service,
    skip_or_fail,
    start,
    unique,
    wait_until,
)


def program(name: str, package: str, path: str | None = None) -> str:
    """Return where a program is; skip a test if it is missing, or fail it in CI."""
    if not (found := shutil.which(name, path=path)):
        skip_or_fail(f"{name} is not installed: apt-get install {package}")
    return found


#: The options of Redis that keeps everything when it is stopped.
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """Redis with options of its command line, which is stopped at the end."""

    def __init__(self, folder: Path, *options: object, kept: Any = KEPT) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://localhost:{self.port}/0"
        server = program("redis-server", "redis-server")
        self.process: Any = None
        where = ("--port", self.port, "--dir", folder)
        self._command = [str(each) for each in (server, *options, *where, *kept)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(lambda: listens(self.port), what=lambda: "Redis")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.thaw()
            self.process.wait(DEADLINE)
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Have the process stand still: connections stay, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


redis_server = RedisServer


def redis_sentinel(folder: Path, *lines: str) -> RedisServer:
    """Return a sentinel with lines of its configuration."""
    folder.mkdir(exist_ok=True)
    config = folder / "sentinel.conf"
    config.write_text("".join(f"sentinel {line}\n" for line in lines))
    return RedisServer(folder, config, "--sentinel", kept=())


@contextmanager
def rabbitmq_server(folder: Path, config: str, port: int) -> Iterator[None]:
    """Start RabbitMQ, whose config has it listen on a port; kill it at the end."""
    # Not the one on the path, which on Debian works only for root and for rabbitmq.
    server = program("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin")
    (folder / "rabbitmq.conf").write_text(config)
    (folder / "plugins").write_text("[].")
    environ = {
        "HOME": folder,  # where its cookie is
        "RABBITMQ_NODENAME": f"{unique()}@localhost",
        "RABBITMQ_DIST_PORT": free_port(),
        "RABBITMQ_MNESIA_BASE": folder,
        "RABBITMQ_LOG_BASE": folder,
        "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins",
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
    }
    env = {name: str(value) for name, value in environ.items()}
    with start(server, cwd=folder, **env) as process:
        process.wait_until(lambda: listens(port), "it listens", 3 * DEADLINE)
        yield


class PostgreSQLServer:
    """PostgreSQL with its data in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
        self._program = program("pg_ctl", "postgresql", ":".join(reversed(paths)))
        self._folder = folder
        self._port = free_port()
        self.url = f"postgresql+psycopg://postgres@localhost:{self._port}/postgres"
        self.run("initdb", options="-U postgres -A trust --no-sync")

    def restart(self, mode: str) -> None:
        self.run("restart", mode)

    def run(self, action: str, mode: str = "immediate", options: str = "") -> None:
        """Have pg_ctl do something."""
        listen = f"-p {self._port} -k {self._folder} -c listen_addresses=localhost"
        places = ["-D", self._folder / "data", "-l", self._folder / "log"]
        # It refuses to run as root.
        root = {"user": "postgres", "group": "postgres", "extra_groups": ()}
        subprocess.run(
            [self._program, action, "-w", "-m", mode, "-o", options or listen, *places],
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            check=True,
            timeout=DEADLINE * 2,
            **(root if os.geteuid() == 0 else {}),
        )


@contextmanager
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """Start PostgreSQL; stop it at the end."""
    # Not in pytest's folder, which only its user may enter.
    with tempfile.TemporaryDirectory("", "pgtest", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres", "postgres")
        server = PostgreSQLServer(Path(name))
        server.run("start")
        try:
            yield server
        finally:
            server.run("stop")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost, which is its own authority, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    usage = "keyUsage=critical,digitalSignature,keyCertSign"
    openssl = program("openssl", "openssl")
    command = f"{openssl} req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256"
    command += f" -days 2 -subj /CN=localhost -keyout {key} -out {cert}"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext {usage}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


@contextmanager
def pgbouncer(folder: Path, pool_mode: str) -> Iterator[int]:
    """Start PgBouncer before the PostgreSQL of this machine, and give its port."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    command = [program("pgbouncer", "pgbouncer", path), "--quiet"]
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n* = host=localhost port=5432 user=postgres\n"
        f"[pgbouncer]\nlisten_addr = localhost\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n"
    )
    if os.geteuid() == 0:  # it refuses to run as root
        command += ["--user", "postgres"]
    with start(*command, config, cwd=folder) as process:
        process.wait_until(lambda: listens(port), "it listens")
        yield port


@contextmanager
def virtual_host() -> Iterator[tuple[str, Callable[..., None]]]:
    """Give a virtual host of RabbitMQ, and a function that runs rabbitmqctl.

    A user of the same name, with the password "secret", has all rights.
    """
    need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
    name = unique()

    def control(*arguments: str) -> None:
        command = ["rabbitmqctl", "--quiet", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    try:
        control("add_vhost", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("rabbitmqctl cannot be run by this user")
    control("add_user", name, "secret")
    control("set_permissions", "-p", name, name, ".*", ".*", ".*")
    yield name, control
    control("delete_user", name)
    control("delete_vhost", name)


def need_web_server(name: str) -> None:
    """Skip a test without uwsgi, or without another one, gunicorn; fail it in CI."""
    if name == "uwsgi" and sys.version_info >= (3, 15):
        pytest.skip("pyuwsgi has no wheel for this Python")
    for module in ["uwsgidecorators"] if name == "uwsgi" else ["gunicorn", "gevent"]:
        if not importlib.util.find_spec(module):
            skip_or_fail(f"{module} is not installed; see the group test")
