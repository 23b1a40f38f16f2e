"""Queues of our own on the servers of this machine, and nothing left of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from kombu import Connection
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from .names import unique

if TYPE_CHECKING:
    from celery import Celery

REDIS = os.environ.get("BENCHMARK_REDIS", "redis://localhost:6379/0")
RABBITMQ = os.environ.get("BENCHMARK_RABBITMQ", "amqp://guest:guest@localhost:5672//")
POSTGRESQL = os.environ.get(
    "BENCHMARK_POSTGRESQL", "postgresql+psycopg://postgres@localhost"
)
SERVER_ERRORS = (RedisError, KombuError, SQLAlchemyError, OSError)
SERVERS = {"Redis": REDIS, "RabbitMQ": RABBITMQ}

_DEADLINE = 60.0
_POLL = 0.001
# A server may still be reading what a worker had sent when it was killed.
_SETTLE = 0.3

#: The same for both sides, beside the broker and the queue.
_SETTINGS = {
    "task_ignore_result": True,
    "broker_connection_retry_on_startup": True,
    # So that no queue for it is left on a server when a worker is killed.
    "worker_enable_remote_control": False,
}


class Broker:
    """A broker, and the queues that were made on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names: list[str] = []

    def settings(self) -> dict[str, Any]:
        """Return Celery's settings for a queue of its own."""
        name = unique()
        self.names.append(name)
        settings = _SETTINGS | {
            "broker_url": self.url,
            "task_default_queue": name,
            "task_default_exchange": name,
            "task_default_routing_key": name,
        }
        if self.url.startswith("redis"):
            # Which all workers of a database share otherwise. No prefix for all keys,
            # as that goes through other code than most users run.
            keys = ("unacked_key", "unacked_index_key", "unacked_mutex_key")
            settings["broker_transport_options"] = {
                key: f"{name}_{key}" for key in keys
            }
        return settings

    def clean(self) -> None:
        """Delete all queues."""
        if self.url.startswith("redis"):
            delete_keys(self.names)
        elif self.url.startswith("amqp"):
            with Connection(self.url) as connection:
                for name in self.names:
                    channel = connection.channel()
                    channel.queue_delete(name)
                    channel.exchange_delete(name)
                    channel.close()


@contextmanager
def broker(url: str) -> Iterator[Broker]:
    """Give a broker, whose queues are deleted at the end."""
    found = Broker(url)
    try:
        yield found
    finally:
        time.sleep(_SETTLE)
        found.clean()


@contextmanager
def database() -> Iterator[str]:
    """Give the URL of a new PostgreSQL database, dropped at the end."""
    name = unique()
    engine = create_engine(
        f"{POSTGRESQL}/postgres", poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield f"{POSTGRESQL}/{name}"
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def purge(app: Celery, count: int) -> None:
    """Remove the messages of an application, once there are as many as that.

    The last ones may still be on their way: RabbitMQ is busy with them, or the thread
    of the outbox is. They are counted first: the memory transport's purge forgets what
    comes while it runs.
    """
    deadline = time.monotonic() + _DEADLINE
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        queue = app.amqp.queues[app.conf.task_default_queue](channel)
        queue.declare()
        # Not passively: kombu finds no queue of Redis in which there is no message.
        while (found := queue.queue_declare().message_count) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{connection.as_uri()}: {queue.name} has {found} messages, "
                    f"not {count}"
                )
            time.sleep(_POLL)
        queue.purge()


def delete_keys(names: list[str]) -> None:
    """Delete the keys in Redis that have one of the names in theirs."""
    client = Redis.from_url(REDIS)
    stale = [
        key
        for key in client.scan_iter(count=1000)
        if any(name.encode() in key for name in names)
    ]
    if stale:
        client.delete(*stale)
    client.close()


def server_versions() -> Iterator[str]:
    """Name the versions of the servers."""
    client = Redis.from_url(REDIS)
    yield f"Redis {cast('dict[str, Any]', client.info())['redis_version']}"
    client.close()
    with Connection(RABBITMQ) as connection:
        connection.ensure_connection(max_retries=1)
        yield f"RabbitMQ {connection.connection.server_properties['version']}"
    engine = create_engine(f"{POSTGRESQL}/postgres", poolclass=NullPool)
    with engine.connect() as connection:
        found = connection.execute(text("SHOW server_version")).scalar_one()
        yield f"PostgreSQL {found.split()[0]}"
