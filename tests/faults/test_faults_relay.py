"""Relays that are killed, and a database that restarts under one."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import wait_until

pytest.importorskip("zope.sqlalchemy")
from servers import postgresql_server
from shop import PATIENCE, Shop, lost_and_duplicates, times

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

BATCH = 20


def test_relay_is_killed_in_a_batch(
    tmp_path: Path, url: str, redis_url: str, report
) -> None:
    """Two relays, one killed over and over in the middle of a batch: 0 lost."""
    kills = times(20)
    shop = Shop(tmp_path, url, "redis://localhost:1/0")
    with shop.serve() as order:
        for number in range(kills * BATCH * 2 + 100):
            assert order(number)[0] == 200
    stored = shop.outbox()
    # From here on there is a broker, and each message takes a moment to reach it.
    shop.broker = shop.server = redis_url
    shop.ini = shop.write_ini(
        "relay.ini", url, redis_url, outboxapp__publish_pause="0.1"
    )
    killed = 0
    with shop.relay("--batch", BATCH):
        while killed < kills and shop.outbox():
            with shop.relay("--batch", BATCH) as relay:
                time.sleep(random.uniform(0.1, 2))
                os.kill(relay.popen.pid, signal.SIGKILL)
                killed += 1
        wait_until(lambda: not shop.outbox(), PATIENCE)
    expected = list(shop.orders().values())
    lost, duplicates = lost_and_duplicates(expected, shop.sent())
    report(messages=stored, kills=killed, lost=lost, duplicates=duplicates)
    assert killed
    assert stored == len(expected)
    assert lost == 0
    assert duplicates <= killed * BATCH


def test_database_restarts_under_the_relay(
    tmp_path: Path, redis_url: str, report
) -> None:
    """The relay connects again, with the database's restart fast or brutal: 0 lost."""
    restarts = times(20)
    with ExitStack() as stack:
        server = stack.enter_context(postgresql_server())
        shop = Shop(tmp_path, server.url, redis_url)
        order = stack.enter_context(shop.serve())
        relay = stack.enter_context(shop.relay())
        number = failed = 0
        for turn in range(restarts):
            for _ in range(10):
                # The process is killed after the commit, so the relay has to send.
                number += 1
                order(number, "committed")
            server.restart("immediate" if turn % 2 else "fast")
            number += 1
            failed += order(number)[0] != 200
            assert relay.popen.poll() is None, relay.output
        wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
        assert relay.stop() == 0
        expected = list(shop.orders().values())
        lost, duplicates = lost_and_duplicates(expected, shop.sent())
        report(
            orders=len(expected),
            restarts=restarts,
            failed_requests=failed,
            reconnects=relay.output.count("Everything is back"),
            lost=lost,
            duplicates=duplicates,
        )
        assert len(expected) >= number - failed - restarts
        assert lost == 0
        shop.engine.dispose()
