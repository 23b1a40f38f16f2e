"""The names of kombu that its documentation does not have.

They were tried on kombu 5.3 to 5.7; ``tests/test_private_names.py`` fails when a new
version changes one.
"""

from __future__ import annotations

from typing import Any

from kombu import pools


def renew_pools() -> list[Any]:
    """Empty the pools of connections and producers of a process that was forked.

    kombu does so only where multiprocessing forks, and then shuts down connections to
    RabbitMQ that the parent uses. The pools stay the same objects, as applications keep
    them. Their locks are new: a thread of the parent may have held one.

    Returns:
        What was in the pools.
    """
    inherited = []
    for pool in (*pools.connections.values(), *pools.producers.values()):
        inherited += [pool._resource, pool._dirty]
        pool._resource, pool._dirty = type(pool._resource)(), set()
        pool.setup()
    return inherited
