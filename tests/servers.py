"""Servers that a test starts for itself, on free ports, and may stop and restart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import DEADLINE, free_port, wait_until


class RedisServer:
    """Redis that keeps everything when it is stopped."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is not installed")
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://localhost:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = f"--port {self.port} --dir {self.folder} --appendonly yes"
        self.process = subprocess.Popen(
            ["redis-server", *options.split(), "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: listens(self.port), what=lambda: "Redis")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE)
            self.process = None


class PostgreSQLServer:
    """PostgreSQL with its data in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if not found:
            pytest.skip("PostgreSQL's server is not installed")
        self.bin = found[-1].parent
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@localhost:{self.port}/postgres"
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync")

    def start(self, action: str = "start", mode: str = "fast") -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=localhost"
        log = self.folder / "log"
        self._run("pg_ctl", "-w", "-m", mode, "-l", str(log), "-o", options, action)

    def restart(self, mode: str) -> None:
        self.start("restart", mode)

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        # It refuses to run as root.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(
            [
                *(user if os.geteuid() == 0 else ()),
                self.bin / program,
                "-D",
                self.folder / "data",
                *arguments,
            ],
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            check=True,
            timeout=DEADLINE * 2,
        )


def listens(port: int) -> bool:
    """Whether something listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex(("localhost", port)) == 0


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Start Redis; stop it at the end."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """Start PostgreSQL; stop it at the end."""
    # Not in pytest's folder, which only its user may enter.
    folder = Path(tempfile.mkdtemp(prefix="pgtest"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    try:
        server = PostgreSQLServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
