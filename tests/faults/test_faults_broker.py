"""A broker that is stopped for a while, under steady requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support import start, wait_until

pytest.importorskip("zope.sqlalchemy")
from servers import listens, redis_server
from shop import (
    FRACTION,
    PATIENCE,
    Shop,
    lost_and_duplicates,
    place,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

#: The seconds that a request may take: two for the broker, the rest for a slow machine.
LIMIT = 10.0
CLIENTS = 4


@pytest.mark.parametrize("delivery", ["outbox", "commit"])
def test_broker_stops(tmp_path: Path, url: str, delivery: str, report) -> None:
    """Every request answers in time, and every promise is kept."""
    seconds = max(5.0, 10 * FRACTION)
    answers: dict[int, tuple[int, str]] = {}
    latencies: list[float] = []
    stopping = threading.Event()

    with redis_server(tmp_path) as server:
        shop = Shop(tmp_path, url, server.url, pyramid_tasks__delivery=delivery)
        port = shop.port
        with start("pserve", shop.ini, cwd=tmp_path) as process, shop.relay() as relay:
            wait_until(lambda: listens(port), PATIENCE, lambda: process.output)

            def ask(client: int) -> None:
                number = client
                while not stopping.is_set():
                    begin = time.monotonic()
                    url = f"http://localhost:{port}/orders/{number}"
                    try:
                        answers[number] = place(url, PATIENCE)
                    except OSError as error:
                        answers[number] = (-1, str(error))
                    latencies.append(time.monotonic() - begin)
                    number += CLIENTS
                    time.sleep(0.05)

            clients = [
                threading.Thread(target=ask, args=(number,))
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            time.sleep(seconds / 2)
            server.stop()
            time.sleep(seconds)
            server.start()
            time.sleep(seconds / 2)
            stopping.set()
            for client in clients:
                client.join()
            wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
        orders = shop.orders()
        lost, duplicates = lost_and_duplicates(list(orders.values()), shop.sent())
        reported = process.output.count("could not be sent")
    statuses = Counter(status for status, _ in answers.values())
    report(
        requests=len(answers),
        stopped_for=f"{seconds:g} s",
        statuses=dict(statuses),
        slowest=f"{max(latencies):.2f} s",
        lost=lost,
        reported=reported,
        duplicates=duplicates,
    )
    assert max(latencies) < LIMIT
    promised = {number for number, (status, _) in answers.items() if status == 200}
    assert set(orders) == promised
    if delivery == "outbox":
        assert set(statuses) == {200}
        assert lost == 0
    else:
        # A task that was committed between the check and the stop is reported.
        assert set(statuses) == {200, 503}
        assert lost <= reported
        refused = next(text for status, text in answers.values() if status == 503)
        assert "cannot be reached" in refused
