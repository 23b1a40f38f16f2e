"""Databases for tests. Each test has its own, on the servers of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from support import need_service, unique

_POSTGRESQL = "postgresql+psycopg://postgres@localhost"
_MARIADB = "mysql+pymysql://root@127.0.0.1"


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a new database, and drop it at the end.

    Args:
        kind: ``sqlite``, ``postgresql`` or ``mariadb``.
        folder: Where the file of SQLite is put.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder}/test.sqlite"
        return
    if kind == "postgresql":
        need_service("PostgreSQL", 5432, "service postgresql start")
        server, default, drop = _POSTGRESQL, "/postgres", " WITH (FORCE)"
    else:
        need_service("MariaDB", 3306, "service mariadb start")
        server, default, drop = _MARIADB, "", ""
    name = unique()
    engine = create_engine(
        server + default, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield f"{server}/{name}"
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{drop}"))
