"""Facts that kombu does not document: names, and what becomes of errors.

They were tried on kombu 5.3 to 5.7; ``tests/test_private_names.py`` fails when a new
version changes one.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from kombu import pools
from kombu.exceptions import DecodeError, EncodeError


def renew_pools() -> list[Any]:
    """Empty the pools of connections and producers of a process that was forked.

    kombu does so only where multiprocessing forks, and then shuts down connections to
    RabbitMQ that the parent uses. The pools stay the same objects, as applications keep
    them. Their locks are new: a thread of the parent may have held one.

    Returns:
        The former contents of the pools.
    """
    inherited = []
    for pool in (*pools.connections.values(), *pools.producers.values()):
        inherited += [pool._resource, pool._dirty]
        pool._resource, pool._dirty = type(pool._resource)(), set()
        pool.setup()
    return inherited


def raise_limit(error: Exception) -> None:
    """Raise the time limit of a task, if an error is the limit.

    kombu makes an error of its own of whatever strikes while it encodes or decodes.

    Raises:
        SoftTimeLimitExceeded: The time of the task is over.
    """
    if isinstance(error, (EncodeError, DecodeError)) and error.args:
        error = error.args[0]
    if isinstance(error, SoftTimeLimitExceeded):
        raise error from None
