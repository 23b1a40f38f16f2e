"""Redis with a replica and sentinels, which a test may kill and freeze."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from servers import RedisServer, redis_sentinel, redis_server
from support import wait_until

if TYPE_CHECKING:
    from shop import Shop


class Sentinels:
    """A master, a replica, and three sentinels that watch them."""

    #: The name of the master.
    name = "shop"

    def __init__(self, stack: ExitStack, folder: Path, down_after: float) -> None:
        self._stack, self._folder = stack, folder
        self.master = stack.enter_context(redis_server(folder / "master"))
        follow = "--replicaof", f"127.0.0.1 {self.master.port}"
        self.replica = stack.enter_context(redis_server(folder / "replica", *follow))
        lines = (
            f"monitor {self.name} 127.0.0.1 {self.master.port} 2",
            f"down-after-milliseconds {self.name} {down_after * 1000:.0f}",
            f"failover-timeout {self.name} 10000",
        )
        self.sentinels = [
            stack.enter_context(redis_sentinel(folder / f"sentinel{number}", *lines))
            for number in range(3)
        ]
        # The first sentinel is asked first.
        urls = (f"sentinel://localhost:{each.port}" for each in self.sentinels)
        self.url = ";".join(urls)
        wait_until(self._know_each_other, what=lambda: "the sentinels")

    def _know_each_other(self) -> bool:
        states = [
            Redis(port=each.port).sentinel_master(self.name) for each in self.sentinels
        ]
        return all(
            (state["num-other-sentinels"], state["num-slaves"]) == (2, 1)
            for state in states
        )

    def wait_for_failover(self) -> None:
        """Wait until the replica is the master."""
        sentinel = Redis(port=self.sentinels[-1].port)
        replica = Redis(port=self.replica.port)

        def has_taken_over() -> bool:
            _, port = sentinel.sentinel_get_master_addr_by_name(self.name)
            role = replica.info("replication")["role"]
            return (port, role) == (self.replica.port, "master")

        wait_until(has_taken_over, what=lambda: "a new master")

    def keep_master(self) -> RedisServer:
        """Start a server with what the master has written until now."""
        folder = self._folder / "kept"
        shutil.copytree(self.master.folder, folder)
        return self._stack.enter_context(redis_server(folder))

    def sent(self, shop: Shop, kept: RedisServer) -> Counter[str]:
        """Return how often each task is in the queue, of the new or the old master."""
        found = []
        for server in self.replica, kept:
            shop.server = server.url
            found.append(shop.sent())
        return found[0] | found[1]


@contextmanager
def sentinels(folder: Path, down_after: float) -> Iterator[Sentinels]:
    """Start Redis with a replica and sentinels; stop all of them at the end.

    A server is held to be down after some seconds of silence.
    """
    with ExitStack() as stack:
        yield Sentinels(stack, folder, down_after)
