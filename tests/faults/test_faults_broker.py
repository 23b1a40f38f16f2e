"""A broker that is stopped for a while, under steady requests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import wait_until

pytest.importorskip("zope.sqlalchemy")
from servers import redis_server
from shop import FRACTION, PATIENCE, Load, Shop, lost_and_duplicates

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

#: The seconds that a request may take: two for the broker, the rest for a slow machine.
LIMIT = 10.0


@pytest.mark.parametrize("delivery", ["outbox", "commit"])
def test_broker_stops(tmp_path: Path, url: str, delivery: str, report) -> None:
    """Every request answers in time, and every promise is kept."""
    seconds = max(5.0, 10 * FRACTION)
    with redis_server(tmp_path) as server:
        shop = Shop(tmp_path, url, server.url, pyramid_tasks__delivery=delivery)
        with shop.pserve() as process, shop.relay() as relay:
            with Load(shop) as load:
                time.sleep(seconds / 2)
                server.stop()
                time.sleep(seconds)
                server.start()
                time.sleep(seconds / 2)
            wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
        orders = shop.orders()
        lost, duplicates = lost_and_duplicates(list(orders.values()), shop.sent())
        reported = process.output.count("could not be sent")
    statuses = load.statuses
    report(
        requests=len(load.answers),
        stopped_for=f"{seconds:g} s",
        statuses=statuses,
        slowest=f"{load.slowest:.2f} s",
        lost=lost,
        reported=reported,
        duplicates=duplicates,
    )
    assert load.slowest < LIMIT
    assert set(orders) == load.promised()
    if delivery == "outbox":
        assert set(statuses) == {200}
        assert lost == 0
    else:
        # A task that was committed between the check and the stop is reported.
        assert set(statuses) == {200, 503}
        assert lost <= reported
        refused = next(text for status, text in load.answers.values() if status == 503)
        assert "cannot be reached" in refused
