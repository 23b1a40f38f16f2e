"""A worker that is killed in the middle of its tasks."""

from __future__ import annotations

import os
import random
import signal
import time

from kombu import Connection
from shop import PATIENCE, Shop, kill_child, lost_and_duplicates, times
from support import need_service, wait_until

BROKER = "amqp://guest:guest@localhost:5672//"


def test_worker_is_killed_in_a_task(tmp_path, url, report) -> None:
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

    def have_all_run() -> bool:
        return set(expected) <= set(shop.runs())

    try:
        with shop.serve() as order:
            for number in range(kills * 10):
                assert order(number)[0] == 200
        expected = list(shop.orders().items())
        killed = 0
        while not have_all_run():
            with shop.worker("-c", 2) as worker:
                before = shop.runs()
                wait_until(
                    lambda b=before: shop.runs() != b or have_all_run(), PATIENCE
                )
                for _ in range(2):
                    if killed < kills:
                        time.sleep(random.uniform(0, 0.2))
                        killed += kill_child(worker)
                if killed < kills:
                    os.killpg(worker.popen.pid, signal.SIGKILL)
                    killed += 1
                else:
                    wait_until(have_all_run, PATIENCE, lambda: worker.output)
    finally:
        with Connection(BROKER) as connection:
            connection.default_channel.queue_delete(shop.queue)
            connection.default_channel.exchange_delete(shop.queue)
    found = lost_and_duplicates(expected, shop.runs())
    report(tasks=len(expected), kills=killed, **found)
    assert found["lost"] == 0
