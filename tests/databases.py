"""Databases for tests. Each test has its own, on the servers of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import NullPool
from support import need_service, unique


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a new database, and drop it at the end.

    Its kind is ``sqlite``, in a file in the folder, ``postgresql`` or ``mariadb``.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder}/test.sqlite"
        return
    if kind == "postgresql":
        need_service("PostgreSQL", 5432, "service postgresql start")
        server, force = "postgresql+psycopg://postgres@localhost", " WITH (FORCE)"
        options = ""
    else:
        need_service("MariaDB", 3306, "service mariadb start")
        server, force = "mysql+pymysql://root@127.0.0.1", ""
        # Without this, the driver reads all certificates for each connection.
        options = "?ssl_disabled=true"
    name = unique()
    engine = create_engine(
        f"{server}/{options}", poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    execute(engine, f"CREATE DATABASE {name}")
    try:
        yield f"{server}/{name}{options}"
    finally:
        execute(engine, f"DROP DATABASE {name}{force}")


def execute(engine: Engine, *statements: str) -> None:
    """Execute statements, and commit."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@contextmanager
def engine_with_schemas(
    kind: str, folder: Path, *schemas: str
) -> Iterator[tuple[Engine, dict[str, str]]]:
    """Give an engine, and schemas that it finds, by the names that were asked for."""
    with database(kind, folder) as url:
        engine = create_engine(url)
        # MariaDB has schemas in no database.
        prefix = f"{engine.url.database}_" if kind == "mariadb" else ""
        names = {name: prefix + name for name in schemas}
        if kind == "sqlite":

            @event.listens_for(engine, "connect")
            def attach(connection: Any, _: object) -> None:
                for name in schemas:
                    connection.execute(f"ATTACH '{folder}/{name}.sqlite' AS {name}")

        else:
            execute(engine, *(f"CREATE SCHEMA {name}" for name in names.values()))
        yield engine, names
        if kind == "mariadb":
            execute(engine, *(f"DROP SCHEMA {name}" for name in names.values()))
        engine.dispose()
