"""The statements that insert rows of the outbox, one for each kind of database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Double, bindparam, func, insert

from .models import TABLE_NAME, database_time, metadata
from .schemas import schema_in_postgresql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from .rows import Row
    from .schemas import Options

_table = metadata.tables[TABLE_NAME]
_columns = _table.c

_insert = insert(_table).values(
    task=bindparam("task"),
    task_id=bindparam("task_id"),
    message=bindparam("message"),
    created=database_time(),
    not_before=database_time() + bindparam("lease", type_=Double()),
)
_insert_many = _insert.returning(_columns.id, sort_by_parameter_order=True)
# Where a statement names no schema, the search_path of PostgreSQL or the USE of MariaDB
# decides. The database says with the row what it has decided.
_insert_in_postgresql = _insert.returning(
    _columns.id,
    schema_in_postgresql(f"{TABLE_NAME}.tableoid"),
    sort_by_parameter_order=True,
)
_insert_in_mariadb = _insert.returning(
    _columns.id, func.database(), sort_by_parameter_order=True
)


def insert_rows(
    connection: Connection, rows: Sequence[Row], lease: float, options: Options
) -> None:
    """Insert rows, in their order.

    Args:
        lease: For how many seconds no relay may send them.
        options: The execution options for the schema of the table.
    """
    values = [
        {
            "task": row.task,
            "task_id": row.task_id,
            "message": row.message,
            "lease": lease,
        }
        for row in rows
    ]
    dialect = connection.dialect
    execute = partial(connection.execute, execution_options=options)
    statement = None
    if dialect.name == "postgresql":
        statement = _insert_in_postgresql
    elif getattr(dialect, "is_mariadb", False) and dialect.insert_returning:
        statement = _insert_in_mariadb
    if statement is not None:
        found = execute(statement, values if len(rows) > 1 else values[0])
        for row, (number, schema) in zip(rows, found, strict=True):
            row.id = number
            row.schema = row.schema or schema
        return
    returns_many = dialect.insert_executemany_returning_sort_by_parameter_order
    if len(rows) > 1 and returns_many:
        ids = execute(_insert_many, values).scalars().all()
    else:
        ids = [
            execute(_insert, each).inserted_primary_key[0]  # type: ignore[index]
            for each in values
        ]
    for row, number in zip(rows, ids, strict=True):
        row.id = number
