"""``celery ... outbox``: the commands for the outbox of an application.

Every ``celery`` command of every project in the environment imports this module. So it
imports nothing heavy before one of its own commands runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .opening import open_outbox, open_schemas

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from .manage import Status

    # Schemas, as far as they were given, and ids.
    _Ids = tuple[tuple[str | None, int], ...]


@click.group()
def outbox() -> None:
    """Deferred tasks that are kept in the database of the application."""


@outbox.command()
@click.option("--once", is_flag=True, help="Send what is due, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.01),
    metavar="SECONDS",
    help="Between looks at the outbox. Default, 2 if PostgreSQL wakes the relay, and "
    "0.2 if not.",
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
def run(ctx: click.Context, *, once: bool, interval: float | None, batch: int) -> None:
    """Send what web processes could not send."""
    with open_outbox(ctx) as (found, engine):
        from .relay import Relay
        from .stopping import stop_on_signals

        relay = Relay(found.registry, engine, interval, batch)
        stop_on_signals(relay.stop, relay.ends_within)
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        if once:
            click.echo(f"Sent: {relay.run_once()}")
        else:
            relay.run(lambda: click.echo("The relay is ready."))


@outbox.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show what is in the outbox. Fails if a message is set aside."""
    found: dict[str | None, Status] = {}
    with open_schemas(ctx) as engines:
        from ..registry import get_tasks
        from .manage import get_status, summarize

        for schema, engine in engines.items():
            with engine.begin() as connection:
                found[schema] = get_status(connection)
        total = summarize(found.values())
    several = len(found) > 1
    if as_json:
        summary = dict(vars(total))
        if several:
            summary["schemas"] = {schema: vars(each) for schema, each in found.items()}
        click.echo(json.dumps(summary))
    else:
        for schema, each in found.items():
            if several:
                click.echo(f"Schema: {schema}")
            click.echo(f"Waiting: {each.waiting}")
            click.echo(f"Oldest: {each.oldest:.1f} s")
            click.echo(f"Set aside: {each.set_aside}")
            click.echo(f"Relay: {each.relay or 'none runs'}")
        delivery = get_tasks(ctx.obj.app.registry).delivery
        if delivery != "outbox":
            click.echo(
                f"Note: the delivery of the application is {delivery}, so only calls "
                "that choose the outbox themselves come here."
            )
    if total.set_aside:
        if not as_json:
            click.echo('Messages are set aside: see "outbox list".', err=True)
        ctx.exit(1)


@outbox.command("list")
@click.option("--args", "with_args", is_flag=True, help="Show the arguments, too.")
@click.pass_context
def list_(ctx: click.Context, *, with_args: bool) -> None:
    """Show the messages in the outbox, one on each line below the titles."""
    with open_schemas(ctx) as engines:
        from .manage import read_all

        click.echo("Id  Task[id of the task]  Age")
        for schema, engine in engines.items():
            prefix = f"{schema}." if len(engines) > 1 else ""
            with engine.begin() as connection:
                for row in read_all(connection, with_messages=with_args):
                    click.echo(prefix + _line(row, with_args=with_args))


def _line(row: Any, *, with_args: bool) -> str:
    from kombu.utils.json import loads

    line = f"{row.id}  {row.task}[{row.task_id}]  {row.age:.0f} s"
    if with_args:
        call = loads(row.message)
        line += f"  args={call['args']!r} kwargs={call['kwargs']!r}"
    if row.attempts:
        line += f"  refused: {row.attempts}"
    if row.set_aside:
        line += "  set aside"
    if row.error:
        line += f"  {row.error.splitlines()[0]}"
    return line


def _as_id(value: str) -> tuple[str | None, int]:
    """Read an id as "outbox list" shows it, and its schema if it is shown."""
    schema, _, number = value.rpartition(".")
    if not number.isdecimal():
        raise click.BadParameter(f'{value} is not an id of "outbox list".')
    return schema or None, int(number)


@outbox.command()
@click.argument("ids", nargs=-1, type=_as_id, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All messages that were refused.")
@click.pass_context
def retry(ctx: click.Context, ids: _Ids, *, every: bool) -> None:
    """Let the relay try refused messages again."""
    if bool(ids) == every:
        raise click.UsageError('Give the ids of "outbox list", or --all.')

    def change(connection: Connection, chosen: list[int]) -> int:
        from .manage import retry

        return retry(connection, chosen, every=every)

    _change(ctx, ids, change, "To be tried again")


def _change(
    ctx: click.Context,
    ids: _Ids,
    change: Callable[[Connection, list[int]], int],
    done: str,
) -> None:
    """Change the messages that were chosen, in each schema, and say how many.

    Args:
        change: A function that changes some of one schema, and returns their number.
        done: What the messages are then.
    """
    count, missing = 0, []
    with open_schemas(ctx) as engines:
        from .manage import find_missing

        _check_schemas(engines, ids)
        for name, engine in engines.items():
            chosen = [number for schema, number in ids if schema in {None, name}]
            prefix = f"{name}." if len(engines) > 1 else ""
            with engine.begin() as connection:
                absent = find_missing(connection, chosen)
                missing += [f"{prefix}{number}" for number in absent]
                count += change(connection, chosen)
    click.echo(f"{done}: {count}")
    if missing:
        raise click.ClickException(
            f'Not in the outbox: {", ".join(missing)}. See "outbox list".'
        )


def _check_schemas(engines: dict[str | None, Engine], ids: _Ids) -> None:
    for schema, _ in ids:
        if schema is None and len(engines) > 1:
            raise click.UsageError(
                'There are several schemas: give ids as "outbox list" shows them, with '
                "their schemas."
            )
        if schema is not None and schema not in engines:
            raise click.UsageError(
                f"{schema} is no schema of pyramid_tasks.outbox_schema."
            )


@outbox.command()
@click.argument("ids", nargs=-1, type=_as_id, required=True, metavar="ID...")
@click.pass_context
def discard(ctx: click.Context, ids: _Ids) -> None:
    """Delete messages, which are then never sent."""

    def change(connection: Connection, chosen: list[int]) -> int:
        from .manage import discard

        return discard(connection, chosen)

    _change(ctx, ids, change, "Discarded")


@outbox.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make the tables."""
    with open_outbox(ctx) as (found, engine):
        from sqlalchemy import inspect

        from .tables import create_tables, schema_of

        schemas = found.schemas
        argument = f', schema="{schemas.names[0]}"' if len(schemas.names) == 1 else ""
        for each in schemas.all(engine):
            schema = schema_of(each)
            for name, made in create_tables(each).items():
                full = f"{schema}.{name}" if schema else name
                click.echo(f"{full}: {'made' if made else 'is there already'}.")
        if inspect(engine).has_table("alembic_version"):
            click.echo(
                "Alembic looks after this database. Its next autogenerated migration "
                "would drop tables that it does not know. Declare these in the "
                "metadata that env.py gives to Alembic:\n"
                "    from pyramid_tasks.contrib.outbox_table import outbox_table\n"
                f"    outbox_table(Base.metadata{argument})"
            )
