"""Delivery by outbox: a deferred task is a row, committed with the application's data.

Choose it in the settings, beside ``pyramid_tasks.contrib.pyramid_tm``::

    pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm
    pyramid_tasks.delivery = outbox

or call ``config.include("pyramid_tasks.contrib.outbox")``, which does both. It needs
the extra ``pyramid-tasks[outbox]``, a session that ``zope.sqlalchemy`` has made part of
the transaction, the table (``celery ... outbox create``) and a relay
(``celery ... outbox run``).

After the commit, a thread of the process that deferred the task sends it and deletes
the row. If that process dies or the broker is down, the relay sends the task. A task
can be sent twice, with the same id.

Settings:

``pyramid_tasks.outbox_lease``
    For how many seconds a row belongs to the process that wrote it, before a relay
    sends it; default 5.
``pyramid_tasks.outbox_max_attempts``
    How often a message may be refused for its content, for example because the task
    does not exist, before it is set aside; default 5.
``pyramid_tasks.outbox_schema``
    The schema of the tables; or a list of schemas, one for each tenant, which the relay
    works through. By default, the tables are where a session finds them.
``pyramid_tasks.outbox_send``
    The sender of committed rows: ``thread``, the default; ``request``, which sends
    before it ends; or ``relay``, so that the process never talks to the broker.
``pyramid_tasks.delivery_timeout``
    How many seconds the process has, at its end, to send what it has committed, and how
    many a ``request`` has; default 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import get_tasks

if TYPE_CHECKING:
    from pyramid.config import Configurator


def includeme(config: Configurator) -> None:
    """Run tasks in transactions, and make delivery by outbox the default."""
    config.include("pyramid_tasks.contrib.pyramid_tm")
    get_tasks(config.registry).delivery = "outbox"
