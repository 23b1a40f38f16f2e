"""Orders that are shipped once, whatever is killed and delivered twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from databases import database
from redis import Redis
from servers import redis_server
from shop import PATIENCE, Shop, kill_child, times
from support import Process, wait_until

ONE_BACKEND = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "ORDER BY random() LIMIT 1",
    "mysql": "SELECT concat('KILL ', id) FROM information_schema.processlist "
    "WHERE db = database() AND id <> connection_id() ORDER BY rand() LIMIT 1",
}


class InboxShop(Shop):
    application = "inboxapp"

    def counts(self) -> tuple[int, dict[str, Counter[Any]], int]:
        """Return the number of orders, what was done for each, and the stock."""
        done = {
            table: Counter(self.query(f"SELECT order_id FROM {table}"))
            for table in ("shipments", "notices")
        }
        ((stock,),) = self.query("SELECT pieces FROM stock")
        return len(self.orders()), done, stock

    def logs(self) -> str:
        """Return what the workers and the relays have printed."""
        logs = self.folder.glob("celery*.log")
        return "".join(log.read_text("utf-8") for log in logs)

    def kill_backend(self) -> None:
        """Kill a connection of the database, any but this one."""
        find = ONE_BACKEND.get(self.engine.dialect.name)
        for row in self.query(find) if find else ():
            if str(row[0]).startswith("KILL"):
                with suppress(Exception):  # the connection may have ended by itself
                    self.query(row[0])


class Restarted:
    """A process that is started again when it ends, as a worker without Redis may."""

    def __init__(self, stack: ExitStack, start: Callable[[], Any]) -> None:
        self._start = start
        self._stack = stack.enter_context(ExitStack())
        self.process: Process = self._stack.enter_context(start())

    def kill(self) -> None:
        self._stack.close()
        self.process = self._stack.enter_context(self._start())

    def keep(self) -> None:
        if self.process.popen.poll() is not None:
            self.kill()


@pytest.mark.parametrize("inbox", ["true", "false"])
@pytest.mark.parametrize(
    ("kind", "part"), [("postgresql", 1), ("mariadb", 0.1), ("sqlite", 0.1)]
)
def test_everything_is_killed(tmp_path, report, kind, part, inbox) -> None:
    """With the inbox, each order is shipped once; without it, the count is printed."""
    if inbox == "false":
        part /= 10
    orders, kills = times(1000 * part), times(200 * part)
    done: Counter[str] = Counter()
    with ExitStack() as stack:
        url = stack.enter_context(database(kind, tmp_path))
        redis = stack.enter_context(redis_server(tmp_path))
        shop = InboxShop(
            tmp_path,
            url,
            redis.url,
            pyramid_tasks__inbox=inbox,
            pyramid_tasks__max_deliveries=1000,
            celery__task_acks_late="true",
            celery__task_reject_on_worker_lost="true",
            celery__broker_transport_options='{"visibility_timeout": 10}',
            inboxapp__twice="true",
            inboxapp__work="0.02",
        )
        stack.callback(shop.engine.dispose)
        order = stack.enter_context(shop.serve())
        relay = Restarted(stack, shop.relay)
        workers = [Restarted(stack, lambda: shop.worker("-c", 2)) for _ in range(2)]

        def keep_all() -> None:
            for each in relay, *workers:
                each.keep()

        def restart_redis() -> None:
            redis.kill()
            redis.start()

        def place_orders() -> None:
            ends = ["committed", "published"] * (kills // 4)
            ends += [""] * (orders - len(ends))
            random.shuffle(ends)
            for number, end in enumerate(ends):
                done["web"] += bool(end)
                order(number, end)

        customers = threading.Thread(target=place_orders)
        customers.start()
        ways: dict[str, Callable[[], None]] = {
            "relay": relay.kill,
            "redis": restart_redis,
            "connection": shop.kill_backend,
            "worker": lambda: random.choice(workers).kill(),
            "child": lambda: kill_child(random.choice(workers).process),
        }
        for number in range(kills - kills // 4 * 2):
            way = random.choice([*ways, "child", "child", "connection", "connection"])
            way = way if number >= len(ways) else list(ways)[number]
            ways[way]()
            done[way] += 1
            time.sleep(random.uniform(0, 0.3))
            keep_all()
        customers.join(PATIENCE * 5)
        assert not customers.is_alive()

        def is_done() -> bool:
            keep_all()
            client = Redis.from_url(redis.url)
            waiting = client.llen(shop.queue) or client.hlen("unacked")
            placed, found, _ = shop.counts()
            all_done = all(len(each) == placed for each in found.values())
            return all_done and not waiting and not shop.outbox()

        wait_until(is_done, PATIENCE * 2, lambda: str(shop.counts()))
        placed, found, stock = shop.counts()
        twice = {
            name: sum(n > 1 for n in each.values()) for name, each in found.items()
        }
        report(orders=placed, twice=twice, stock=stock, kills=done.total(), **done)
        # SQLAlchemy logs the error too, if the connection is killed right after it.
        assert "raised unexpected: IntegrityError" not in shop.logs()
        if inbox == "true":
            assert twice == {"shipments": 0, "notices": 0}
            assert stock == -placed
