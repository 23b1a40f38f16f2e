"""``celery ... outbox``: the commands for the outbox of an application.

Every ``celery`` command of every project in the environment imports this module. So it
imports nothing heavy before one of its own commands runs.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine


@click.group()
def outbox() -> None:
    """Deferred tasks that are kept in the database of the application."""


@outbox.command()
@click.option("--once", is_flag=True, help="Send what is due, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between looks at the outbox. PostgreSQL wakes the relay earlier.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many messages to take at a time.",
)
@click.pass_context
def run(ctx: click.Context, *, once: bool, interval: float, batch: int) -> None:
    """Send what web processes could not send."""
    with _opened(ctx) as (registry, engine):
        from .relay import Relay
        from .table import check_table

        relay = Relay(registry, engine, interval, batch)
        signal.signal(signal.SIGTERM, relay.stop)
        signal.signal(signal.SIGINT, relay.stop)
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        if once:
            check_table(engine)
            click.echo(f"Sent: {relay.run_once()}")
        else:
            relay.run(lambda: click.echo("The relay is ready."))


@outbox.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show what is in the outbox."""
    with _opened(ctx) as (_, engine):
        from .rows import get_status
        from .table import check_table

        check_table(engine)
        found = get_status(engine)
        click.echo(f"Waiting: {found.waiting}")
        click.echo(f"Oldest: {found.oldest:.1f} s")
        click.echo(f"Set aside: {found.set_aside}")


@outbox.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make the tables."""
    with _opened(ctx) as (_, engine):
        from . import inbox_table  # noqa: F401 its table is made too
        from .table import create_tables

        for name, made in create_tables(engine).items():
            click.echo(f"{name}: {'made' if made else 'is there already'}.")


@contextmanager
def _opened(ctx: click.Context) -> Iterator[tuple[Registry, Engine]]:
    """Give the registry of the application and the engine of its outbox.

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
        yield app.registry, get_outbox(app.registry).get_engine()
    except PyramidTasksError as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        raise click.ClickException(
            f"The database of the outbox cannot be used: {reason}"
        ) from error
