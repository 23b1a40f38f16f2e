"""A web process that dies, and transactions that do not commit."""

from __future__ import annotations

from shop import PATIENCE, lost_and_duplicates, times
from support import wait_until


def test_web_process_is_killed(shop, report) -> None:
    """Killed between commit and publish, or between publish and delete: 0 lost."""
    kills = times(200)
    with shop.serve() as order, shop.relay(), shop.worker("-c", 2):
        for number, end in enumerate(["committed"] * kills + ["published"] * kills):
            assert order(2 * number, end)[0] == 0
            # Another request lives, so that both kinds are sent at the same time.
            assert order(2 * number + 1)[0] == 200
        expected = list(shop.orders().items())
        assert len(expected) == 4 * kills
        wait_until(
            lambda: set(expected) <= set(shop.runs()) and not shop.outbox(),
            PATIENCE,
            lambda: f"{shop.outbox()} in the outbox, {len(shop.runs())} have run",
        )
    found = lost_and_duplicates(expected, shop.runs())
    report(orders=4 * kills, before_publish=kills, after_publish=kills, **found)
    assert found["lost"] == 0


def test_what_is_not_committed_is_not_sent(shop, report) -> None:
    """Abort, savepoint rollback, doom, exception: 0 sent."""
    count = times(100)
    with shop.serve() as order, shop.relay() as relay:
        for end in "abort", "savepoint", "doom", "error":
            for number in range(count):
                # After its abort the view goes on and fails, as it should.
                status, answer = order(number, end)
                assert status in {200, 500}, answer
        relay.stop()
    report(transactions=4 * count, sent=len(shop.sent()), stored=shop.outbox())
    assert not shop.orders()
    assert not shop.sent()
    assert not shop.outbox()
