"""``celery ... inbox``: the command for the inbox of an application.

Every ``celery`` command of every project in the environment imports this module. So it
imports nothing heavy before its own command runs.
"""

from __future__ import annotations

import click

from .opening import open_outbox


@click.group()
def inbox() -> None:
    """Tasks that have changed the database of the application."""


@inbox.command()
@click.pass_context
def purge(ctx: click.Context) -> None:
    """Delete rows that are older than pyramid_tasks.inbox_keep."""
    with open_outbox(ctx) as (outbox, engine):
        from .inbox_rows import purge
        from .tables import check_inbox_table

        engines = outbox.schemas.all(engine)
        for each in engines:
            check_inbox_table(each)
        keep = outbox.number("inbox_keep")
        click.echo(f"Deleted: {sum(purge(each, keep) for each in engines)}")
