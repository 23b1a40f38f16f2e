"""Relays that are killed, and a database that restarts under one."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack

from servers import postgresql_server
from shop import PATIENCE, Shop, times
from support import Process, wait_until

BATCH = 20


def test_relay_is_killed_in_a_batch(tmp_path, url, redis_url, report) -> None:
    """Of two relays, the one that works is killed in a batch, over and over: 0 lost."""
    kills = times(20)
    shop = Shop(tmp_path, url, "redis://localhost:1/0")
    with shop.serve() as order:
        for number in range(kills * BATCH * 2 + 100):
            assert order(number)[0] == 200
    stored = shop.outbox()
    # From here on there is a broker, and each message takes a moment to reach it.
    shop.broker = shop.server = redis_url
    pause = {"outboxapp.publish_pause": "0.1"}
    shop.ini = shop.write_ini("relay.ini", url, redis_url, **pause)
    killed = 0
    with ExitStack() as stack:

        def start() -> Process:
            return stack.enter_context(shop.relay("--batch", BATCH))

        def working_ones() -> list[Process]:
            return [each for each in relays if "This relay works" in each.output]

        relays = [start(), start()]
        while killed < kills and shop.outbox():
            working, *_ = wait_until(working_ones, PATIENCE)
            time.sleep(random.uniform(0.1, 2))
            working.kill()
            killed += 1
            relays.remove(working)
            relays.append(start())
        shop.wait_until_sent(*relays)
    found = shop.outcome()
    report(kills=killed, **found)
    assert killed
    assert stored == found["orders"]
    assert found["lost"] == 0
    assert found["duplicates"] <= killed * BATCH


def test_database_restarts_under_the_relay(tmp_path, redis_url, report) -> None:
    """The relay connects again, with the database's restart fast or brutal: 0 lost."""
    restarts = times(20)
    with ExitStack() as stack:
        server = stack.enter_context(postgresql_server())
        shop = Shop(tmp_path, server.url, redis_url)
        order = stack.enter_context(shop.serve())
        relay = stack.enter_context(shop.relay())
        failed = 0
        for turn in range(restarts):
            for number in range(10):
                # The process is killed after the commit, so the relay has to send.
                order(11 * turn + number, "committed")
            server.restart("immediate" if turn % 2 else "fast")
            failed += order(11 * turn + 10)[0] != 200
            assert relay.popen.poll() is None, relay.output
        shop.wait_until_sent(relay)
        assert relay.stop() == 0
        found = shop.outcome()
        reconnects = relay.output.count("Everything is back")
        report(restarts=restarts, failed=failed, reconnects=reconnects, **found)
        assert found["orders"] >= 10 * restarts - failed
        assert found["lost"] == 0
        shop.engine.dispose()
