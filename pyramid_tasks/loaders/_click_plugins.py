"""A name of click-plugins that its documentation does not have.

Celery builds its command with ``click_plugins.with_plugins``, which loads the entry
points of ``celery.commands``. The command is no importable name at that moment. Only
the local variable ``group`` of ``with_plugins`` holds the command. The module was tried
on click-plugins 1.1 with Celery 5.3 to 5.7. Like :mod:`.cli`, it must stay tiny.
"""

from __future__ import annotations

import sys

import click


def find_celery_group() -> click.Group | None:
    """Return the ``celery`` command, if this code runs while Celery builds it."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        group = frame.f_locals.get("group")
        if isinstance(group, click.Group) and group.name == "celery":
            return group
    return None
