"""The outbox of the application that a command opens.

Every ``celery`` command of every project in the environment imports this module. So it
imports nothing heavy before a command of this package runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .configuration import Outbox


@contextmanager
def open_schemas(ctx: click.Context) -> Iterator[dict[str | None, Engine]]:
    """Give an engine for each schema with the tables of the outbox."""
    with open_outbox(ctx) as (outbox, engine):
        from .tables import check_table, schema_of

        engines = outbox.schemas.all(engine)
        for each in engines:
            check_table(each)
        yield {schema_of(each): each for each in engines}


@contextmanager
def open_outbox(ctx: click.Context) -> Iterator[tuple[Outbox, Engine]]:
    """Give the outbox of the application and the engine for commands.

    An error inside the ``with`` block is one sentence where a traceback would say no
    more.
    """
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise click.ClickException(
            "The outbox needs SQLAlchemy: install pyramid-tasks[outbox]."
        ) from None
    from ..application import PyramidCelery
    from ..exceptions import OutboxError, PyramidTasksError
    from .configuration import get_outbox

    try:
        app = ctx.obj.app
        if not isinstance(app, PyramidCelery):
            raise OutboxError(
                "This needs a Pyramid application with tasks: pass -A "
                "pyramid_tasks.loaders and --ini config.ini to celery."
            )
        outbox = get_outbox(app.registry)
        yield outbox, outbox.get_engine()
    except PyramidTasksError as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        from .tables import reason_of

        raise click.ClickException(
            f"The database of the outbox cannot be used: {reason_of(error)}"
        ) from error
