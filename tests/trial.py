"""A fault of the broker, for two shops under load: one for each delivery."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from databases import database
from shop import FRACTION, Load, Shop, lost_and_duplicates

if TYPE_CHECKING:
    from support import Process

#: The seconds that a request may take: ``delivery_timeout`` and one more. In a part of
#: the full number of repetitions there is room for a machine that does other things.
LIMIT = 3.0 if FRACTION >= 1 else 10.0
#: The seconds that a relay may take to end after SIGTERM.
END_LIMIT = 15.0


def stop_timed(relay: Process, statuses: tuple[int, ...] = (0,)) -> float:
    """Stop a relay as a service manager does, and return how many seconds it took."""
    begin = time.monotonic()
    assert relay.stop() in statuses, relay.output
    return time.monotonic() - begin


class Party:
    """A shop with its web process, its clients and, with an outbox, its relay."""

    def __init__(self, stack: ExitStack, shop: Shop, delivery: str) -> None:
        self.shop = shop
        self.web = stack.enter_context(shop.pserve())
        self.load = Load(shop, clients=2)
        self.relay: Process | None = None
        self.relay_ended = 0.0
        self._stack = stack
        if delivery == "outbox":
            self.start_relay()

    def start_relay(self) -> None:
        self.relay = self._stack.enter_context(self.shop.relay())

    def stop_relay(self) -> None:
        assert self.relay is not None
        self.relay_ended = max(self.relay_ended, stop_timed(self.relay))

    def check(self, sent: Counter[str], report: Callable[..., None]) -> int:
        """Report what became of the orders, judge it, and return the duplicates."""
        orders, statuses = self.shop.orders(), self.load.statuses
        found = lost_and_duplicates(orders.values(), sent)
        counts: dict[str, object] = {
            "requests": len(self.load.answers),
            "statuses": statuses,
            "slowest": f"{self.load.slowest:.2f} s",
            **found,
        }
        if self.relay is not None:
            set_aside = self.shop.set_aside()
            ended = f"{self.relay_ended:.1f} s"
            report("outbox", **counts, set_aside=set_aside, relay_ended_in=ended)
            assert set(statuses) == {200}
            assert found["lost"] == set_aside == 0
            assert self.relay_ended < END_LIMIT
        else:
            log = self.web.output
            told = log.count("could not be sent")
            untold = sum(not sent[each] and each not in log for each in orders.values())
            report("commit", **counts, told=told, untold=untold)
            assert set(statuses) <= {200, 503}
            assert untold == 0
        assert set(orders) == self.load.promised()
        assert self.load.slowest < LIMIT
        return found["duplicates"]


class Trial:
    """The parties of a trial, and how many duplicates there were in the end."""

    def __init__(self) -> None:
        self.parties: list[Party] = []
        #: What counts the messages of a shop at its broker.
        self.sent: Callable[[Shop], Counter[str]] = Shop.sent
        self.duplicates = 0

    def restart_relay(self) -> None:
        """Stop the relay in the middle of a fault, and start another one."""
        for party in self.parties:
            if party.relay is not None:
                party.stop_relay()
                party.start_relay()


@contextmanager
def run_trial(
    folder: Path,
    report: Callable[..., None],
    broker: str,
    *,
    server: str = "",
    **settings: object,
) -> Iterator[Trial]:
    """Start two shops and their clients; at the end, hold them against the bars.

    Args:
        broker: The URL of the broker that the shops use.
        server: The URL of the broker for this process, if it is another one.
        settings: More settings of the shops, with ``__`` for a dot.
    """
    with ExitStack() as stack:
        trial = Trial()
        for delivery in "outbox", "commit":
            where = folder / delivery
            where.mkdir()
            url = stack.enter_context(database("postgresql", where))
            settings["pyramid_tasks__delivery"] = delivery
            shop = Shop(where, url, broker, **settings)
            stack.callback(shop.engine.dispose)
            shop.server = server or broker
            trial.parties.append(Party(stack, shop, delivery))
        with ExitStack() as loads:
            for party in trial.parties:
                loads.enter_context(party.load)
            # There are orders before the fault, and after it.
            time.sleep(1)
            yield trial
            time.sleep(1)
        for party in trial.parties:
            if party.relay is not None:
                party.shop.wait_until_sent(party.relay)
                party.stop_relay()
            trial.duplicates += party.check(trial.sent(party.shop), report)
