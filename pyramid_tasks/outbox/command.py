"""``celery ... outbox``: the relay of the outbox, and what is in it.

Loaded by every ``celery`` command of every project in an environment that this package
is installed in: nothing heavy is imported before one of these commands runs.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


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
def run(
    ctx: click.Context,
    *,
    once: bool,
    interval: float,
    batch: int,
) -> None:
    """Send what web processes could not send."""
    with _plain_errors():
        registry, engine = _open(ctx)
        from .relay import Relay, check_database

        relay = Relay(registry, engine, interval, batch)
        signal.signal(signal.SIGTERM, relay.stop)
        signal.signal(signal.SIGINT, relay.stop)
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        if once:
            check_database(engine)
            click.echo(f"Sent: {relay.run_once()}")
        else:
            relay.run(lambda: click.echo("The relay is ready."))


@outbox.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show what is in the outbox."""
    with _plain_errors():
        _, engine = _open(ctx)
        from .relay import check_database
        from .rows import get_status

        check_database(engine)
        found = get_status(engine)
        click.echo(f"Waiting: {found.waiting}")
        click.echo(f"Oldest: {found.oldest:.1f} s")
        click.echo(f"Set aside: {found.set_aside}")


@outbox.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make the table."""
    with _plain_errors():
        _, engine = _open(ctx)
        from .relay import create_table
        from .table import TABLE_NAME

        made = create_table(engine)
        click.echo(f"{TABLE_NAME}: {'made' if made else 'is there already'}.")


def _open(ctx: click.Context) -> Any:
    """Return the registry of the application, and the engine of its outbox."""
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "The outbox needs SQLAlchemy: install pyramid-tasks[outbox]."
        ) from None
    from ..application import PyramidCelery
    from ..exceptions import OutboxError
    from .configuration import get_outbox

    app = ctx.obj.app
    if not isinstance(app, PyramidCelery):
        raise OutboxError(
            "This needs a Pyramid application with tasks: pass -A "
            "pyramid_tasks.loaders and --ini config.ini to celery."
        )
    return app.registry, get_outbox(app.registry).get_engine()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong in a sentence, where a traceback would say no more."""
    from ..exceptions import PyramidTasksError

    try:
        yield
    except PyramidTasksError as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        orig = getattr(error, "orig", None) or error
        raise click.ClickException(
            f"The database of the outbox cannot be used: {orig}"
        ) from error
