"""Databases for tests. Each test has its own, on the servers of this machine."""

from __future__ import annotations

import atexit
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
    name = unique()
    if kind == "postgresql":
        need_service("PostgreSQL", 5432, "service postgresql start")
        with _postgresql_database(name):
            yield f"{POSTGRESQL}/{name}"
        return
    need_service("MariaDB", 3306, "service mariadb start")
    # Without the option, the driver reads all certificates for each connection.
    server, option = "mysql+pymysql://root@127.0.0.1", "?ssl_disabled=true"
    engine = _administer(f"{server}/{option}")
    execute(engine, f"CREATE DATABASE {name}")
    try:
        yield f"{server}/{name}{option}"
    finally:
        execute(engine, f"DROP DATABASE {name}")


POSTGRESQL = "postgresql+psycopg://postgres@localhost"

#: The databases of PostgreSQL that are empty again. It takes 0.1 s to make one.
_FREE: list[str] = []


@contextmanager
def _postgresql_database(name: str) -> Iterator[None]:
    """Make a database, or give one that is empty again its name."""
    server = _administer(f"{POSTGRESQL}/")
    if _FREE:
        # Whoever has a URL of the test before does not find it.
        execute(server, f"ALTER DATABASE {_FREE.pop()} RENAME TO {name}")
    else:
        execute(server, f"CREATE DATABASE {name}")
    try:
        yield
    finally:
        execute(_administer(f"{POSTGRESQL}/{name}"), EMPTY)
        _FREE.append(name)


EMPTY = """
DO $$ DECLARE found text; BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR found IN SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    LOOP EXECUTE 'DROP SCHEMA ' || found || ' CASCADE'; END LOOP;
    CREATE SCHEMA public;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""


@atexit.register
def _drop_free() -> None:
    for name in _FREE:
        execute(_administer(f"{POSTGRESQL}/"), f"DROP DATABASE {name}")


def _administer(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


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
