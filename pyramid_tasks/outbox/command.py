"""``celery ... outbox``: the commands for the outbox of an application.

Every ``celery`` command of every project in the environment imports this module. So it
imports nothing heavy before one of its own commands runs.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Connection, Engine


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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show what is in the outbox. Fails if a message is set aside."""
    with _connected(ctx) as connection:
        from ..registry import get_tasks
        from .lease import working_relay
        from .manage import get_status

        found = get_status(connection)
        relay = working_relay(connection)
    if as_json:
        click.echo(json.dumps({**vars(found), "relay": relay}))
    else:
        click.echo(f"Waiting: {found.waiting}")
        click.echo(f"Oldest: {found.oldest:.1f} s")
        click.echo(f"Set aside: {found.set_aside}")
        click.echo(f"Relay: {relay or 'none works'}")
        delivery = get_tasks(ctx.obj.app.registry).delivery
        if delivery != "outbox":
            click.echo(
                f"Note: the delivery of the application is {delivery}, so only calls "
                "that choose the outbox themselves come here."
            )
    if found.set_aside:
        if not as_json:
            click.echo('Messages are set aside: see "outbox list".', err=True)
        ctx.exit(1)


@outbox.command("list")
@click.option("--args", "with_args", is_flag=True, help="Show the arguments, too.")
@click.pass_context
def list_(ctx: click.Context, *, with_args: bool) -> None:
    """Show the messages in the outbox, one on each line."""
    with _connected(ctx) as connection:
        from .manage import read_all
        from .rows import Row

        for row in read_all(connection, with_messages=with_args):
            line = f"{row.id}  {row.task}[{row.task_id}]  {row.age:.0f} s"
            if with_args:
                call = Row(row.task, row.task_id, row.message).canvas
                line += f"  args={call['args']!r} kwargs={call['kwargs']!r}"
            if row.attempts:
                line += f"  refused: {row.attempts}"
            if row.set_aside:
                line += "  set aside"
            if row.error:
                line += f"  {row.error.splitlines()[0]}"
            click.echo(line)


@outbox.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All messages that were refused.")
@click.pass_context
def retry(ctx: click.Context, ids: tuple[int, ...], *, every: bool) -> None:
    """Let the relay try refused messages again."""
    if bool(ids) == every:
        raise click.UsageError('Give the ids of "outbox list", or --all.')
    with _connected(ctx) as connection:
        from .manage import retry

        count = retry(connection, None if every else ids)
        click.echo(f"To be tried again: {count}")
        _check_found(count, ids)


def _check_found(count: int, ids: tuple[int, ...]) -> None:
    missing = len(set(ids)) - count
    if missing > 0:
        raise click.ClickException(
            f'{missing} of these ids are not in the outbox: see "outbox list".'
        )


@outbox.command()
@click.argument("ids", nargs=-1, type=int, required=True, metavar="ID...")
@click.pass_context
def discard(ctx: click.Context, ids: tuple[int, ...]) -> None:
    """Delete messages, which are then never sent."""
    with _connected(ctx) as connection:
        from .manage import discard

        count = discard(connection, ids)
        click.echo(f"Discarded: {count}")
        _check_found(count, ids)


@outbox.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make the tables."""
    with _opened(ctx) as (_, engine):
        from sqlalchemy import inspect

        from .tables import create_tables

        for name, made in create_tables(engine).items():
            click.echo(f"{name}: {'made' if made else 'is there already'}.")
        if inspect(engine).has_table("alembic_version"):
            click.echo(
                "Alembic looks after this database. Its next autogenerated migration "
                "would drop tables that it does not know. Declare these in the "
                "metadata that env.py gives to Alembic:\n"
                "    from pyramid_tasks.contrib.outbox_table import outbox_table\n"
                "    outbox_table(Base.metadata)"
            )


@contextmanager
def _connected(ctx: click.Context) -> Iterator[Connection]:
    """Give a connection to the outbox, in a transaction."""
    with _opened(ctx) as (_, engine):
        from .table import check_table

        check_table(engine)
        with engine.begin() as connection:
            yield connection


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
        from .table import reason_of

        raise click.ClickException(
            f"The database of the outbox cannot be used: {reason_of(error)}"
        ) from error
