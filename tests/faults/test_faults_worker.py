"""A worker that is killed in the middle of its tasks."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from kombu import Connection
from support import need_service, wait_until

pytest.importorskip("zope.sqlalchemy")
from shop import PATIENCE, Shop, lost_and_duplicates, times

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

BROKER = "amqp://guest:guest@localhost:5672//"


def test_worker_is_killed_in_a_task(tmp_path: Path, url: str, report) -> None:
    """A pool process, or the whole worker, killed over and over: 0 lost."""
    need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
    kills = times(20)
    shop = Shop(
        tmp_path,
        url,
        BROKER,
        celery__task_acks_late="true",
        celery__task_reject_on_worker_lost="true",
        outboxapp__work="0.2",
        # The server has a process for each request, and no relay is there.
        pyramid_tasks__outbox_send="request",
    )
    try:
        with shop.serve() as order:
            for number in range(kills * 10):
                assert order(number)[0] == 200
        expected = list(shop.orders().items())
        done = False
        killed = 0
        while not done:
            with shop.worker("-c", 2) as worker:
                before = sum(shop.runs().values())
                wait_until(
                    lambda before=before: (
                        sum(shop.runs().values()) > before
                        or set(expected) <= set(shop.runs())
                    ),
                    PATIENCE,
                    lambda: worker.output,
                )
                for _ in range(2):
                    if killed < kills:
                        time.sleep(random.uniform(0, 0.2))
                        killed += kill_child(worker.popen.pid)
                if killed < kills:
                    os.killpg(worker.popen.pid, signal.SIGKILL)
                    killed += 1
                else:
                    wait_until(
                        lambda: set(expected) <= set(shop.runs()),
                        PATIENCE,
                        lambda: worker.output,
                    )
                done = set(expected) <= set(shop.runs())
    finally:
        with Connection(BROKER) as connection:
            connection.default_channel.queue_delete(shop.queue)
            connection.default_channel.exchange_delete(shop.queue)
    lost, duplicates = lost_and_duplicates(expected, shop.runs())
    report(tasks=len(expected), kills=killed, lost=lost, duplicates=duplicates)
    assert lost == 0


def kill_child(pid: int) -> int:
    """Kill a process of the pool, and return how many were killed."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    with suppress(ProcessLookupError, IndexError):
        os.kill(int(random.choice(children)), signal.SIGKILL)
        return 1
    return 0
