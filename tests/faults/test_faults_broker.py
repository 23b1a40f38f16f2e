"""A broker that stops, dies, freezes or gives no right, and results that are down."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from proxy import Proxy
from redis import Redis
from servers import redis_server, virtual_host
from shop import FRACTION, times
from support import wait_until


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_broker_is_away(tmp_path, trial, fault) -> None:
    """Every request answers in time, and so does a relay; every promise is kept."""
    with redis_server(tmp_path / "redis") as redis, trial(redis.url) as run:
        go, come_back = {
            "stopped": (redis.stop, redis.start),
            "frozen": (redis.freeze, redis.thaw),
        }[fault]
        go()
        time.sleep(max(3.0, 25 * FRACTION))
        run.restart_relay()
        come_back()
    _, commit = run.parties
    refused = [text for status, text in commit.load.answers.values() if status == 503]
    assert fault == "frozen" or "cannot be reached" in refused[0]


def test_broker_is_killed(tmp_path, trial) -> None:
    """So do they when Redis is killed and restarted, again and again."""
    with redis_server(tmp_path / "redis") as redis, trial(redis.url):
        for _ in range(times(6)):
            time.sleep(2)
            redis.kill()
            time.sleep(1)
            redis.start()


def test_results_are_down(redis_url, trial) -> None:
    """Nobody waits for a result backend that is silent, or down, to send a task."""
    seconds = max(1.5, 10 * FRACTION)
    with closing(Proxy(6379)) as proxy:
        results = f"redis://localhost:{proxy.port}/0"
        with trial(redis_url, celery__result_backend=results) as run:
            time.sleep(seconds)
            proxy.silence()
            time.sleep(seconds)
            proxy.refuse()
            time.sleep(seconds)
    assert run.duplicates == 0
    assert all(set(party.load.statuses) == {200} for party in run.parties)


def test_redis_takes_the_right(tmp_path, trial) -> None:
    """What a user of Redis may not send waits, or is told."""
    with redis_server(tmp_path / "redis") as redis, Redis(port=redis.port) as client:
        client.execute_command("ACL SETUSER shop on >secret ~* &* +@all")
        url = f"redis://shop:secret@localhost:{redis.port}/0"
        with trial(url, server=redis.url) as run:
            client.execute_command("ACL SETUSER shop -lpush")
            time.sleep(max(2.0, 20 * FRACTION))
            run.restart_relay()
            client.execute_command("ACL SETUSER shop +lpush")
    assert run.duplicates == 0


def test_rabbitmq_takes_the_right(trial) -> None:
    """So does what a user of RabbitMQ may not send."""
    with virtual_host() as (name, control):
        rights = "set_permissions", "-p", name, name, ".*"
        with trial(f"amqp://{name}:secret@localhost/{name}") as run:
            control(*rights, "nothing", ".*")
            # RabbitMQ remembers what a busy channel may do. What is cut before its
            # confirm may arrive twice, so that duplicates are not counted.
            control("close_all_connections", "--vhost", name, "rights changed")
            _, commit = run.parties
            wait_until(lambda: "could not be sent" in commit.web.output)
            time.sleep(20 * FRACTION)
            run.restart_relay()
            control(*rights, ".*", ".*")
