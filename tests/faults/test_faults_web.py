"""A web process that dies, and transactions that do not commit."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import wait_until

pytest.importorskip("zope.sqlalchemy")
from shop import PATIENCE, Shop, lost_and_duplicates, times

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]


def test_web_process_is_killed(
    tmp_path: Path, url: str, redis_url: str, report
) -> None:
    """Killed between commit and publish, or between publish and delete: 0 lost."""
    shop = Shop(tmp_path, url, redis_url)
    kills = times(200)
    with shop.serve() as order, shop.relay(), shop.worker("-c", 2):
        number = 0
        for end, count in ("committed", kills), ("published", times(50)):
            for _ in range(count):
                number += 1
                # A thread sends, so the answer may come before the end.
                assert order(number, end)[0] == 0 or end == "published"
                # Another request lives, so that both kinds are sent at the same time.
                number += 1
                assert order(number)[0] == 200
        expected = list(shop.orders().items())
        assert len(expected) == number
        wait_until(
            lambda: set(expected) <= set(shop.runs()) and not shop.outbox(),
            PATIENCE,
            lambda: f"{shop.outbox()} in the outbox, {len(shop.runs())} have run",
        )
    lost, duplicates = lost_and_duplicates(expected, shop.runs())
    report(
        orders=len(expected),
        killed_before_publish=kills,
        killed_after_publish=times(50),
        lost=lost,
        duplicates=duplicates,
    )
    assert lost == 0


def test_what_is_not_committed_is_not_sent(
    tmp_path: Path, url: str, redis_url: str, report
) -> None:
    """Abort, savepoint rollback, doom, exception: 0 sent."""
    shop = Shop(tmp_path, url, redis_url)
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
