"""A fault of the broker is never a fault of a message."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from unittest.mock import patch

import pytest
from celery import Task
from kombu.exceptions import OperationalError
from kombu.utils.json import loads
from proxy import Proxy
from redis import Redis
from servers import redis_server, virtual_host
from support import need_service, unique

from pyramid_tasks.delivery.publisher import Publisher
from pyramid_tasks.exceptions import OutboxError


def check(make_app, engine, mend=None, **settings):
    """Send three messages in vain, mend the broker, and send them."""
    app = make_app.with_rows(engine, 1, 2, 3, **settings)
    for _ in range(2):
        with pytest.raises(OutboxError, match=r"is down \(.+\)"):
            app.relay().run_once()
    assert [(row.attempts, row.set_aside) for row in app.rows()] == [(0, False)] * 3
    if mend:
        mend()
        assert app.relay().run_once() == 3
        assert app.rows() == []


@pytest.mark.server
def test_redis_gives_no_right(sqlite, make_app, tmp_path):
    """A user who may not write waits for the right to."""
    with redis_server(tmp_path) as server, Redis(port=server.port) as client:
        client.execute_command("ACL SETUSER shop on >secret ~* &* +@all -lpush")
        mend = partial(client.execute_command, "ACL SETUSER shop +lpush")
        url = f"redis://shop:secret@localhost:{server.port}/0"
        check(make_app, sqlite, mend, celery__broker_url=url)


@pytest.mark.server
def test_rabbitmq_refuses(sqlite, make_app):
    """So does a user of RabbitMQ, and what a full queue rejects waits for room."""
    with virtual_host() as (name, control):
        settings = {"celery__broker_url": f"amqp://{name}:secret@localhost/{name}"}
        permit = partial(control, "set_permissions", "-p", name, name, ".*")
        permit("nothing", ".*")
        check(make_app, sqlite, partial(permit, ".*", ".*"), **settings)
        full = '{"max-length": 0, "overflow": "reject-publish"}'
        control("set_policy", "-p", name, "full", ".*", full)
        mend = partial(control, "clear_policy", "-p", name, "full")
        check(make_app, sqlite, mend, **settings)


@pytest.mark.server
def test_broker_that_dies(sqlite, make_app):
    """It is not asked for each message, and takes them when it is back."""
    need_service("redis", 6379, "redis-server")
    proxy = Proxy(6379)
    url = f"redis://localhost:{proxy.port}/0"
    app = make_app.with_rows(sqlite, 1, 2, celery__broker_url=url)
    app.before_sending(lambda _: proxy.refuse())
    with patch.object(Publisher, "publish") as publish:
        with pytest.raises(OutboxError, match="is down"):
            app.relay().run_once()
        assert publish.call_count == 0
    proxy.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_setting_that_a_client_does_not_understand(sqlite, make_app, scheme):
    """An error while connecting is about no message."""
    too_large = {"TCP_KEEPIDLE": 10**12}
    settings = {
        "celery.broker_url": f"{scheme}://localhost:1",
        "celery.broker_transport_options": {
            "socket_keepalive": True,
            "socket_keepalive_options": too_large,
        },
        "celery.broker_use_ssl": scheme == "rediss" and {"ssl_cert_reqs": "required"},
    }
    check(make_app, sqlite, **settings)


def test_one_reason_for_all(sqlite, make_app):
    """When every message is refused for one reason, none of them is the cause."""
    app = make_app.with_rows(sqlite, *range(5))
    app.fail_to_send(*[ValueError("a router that is broken")] * 5)
    with pytest.raises(OutboxError, match="takes no message: a router that is broken"):
        app.relay().run_once()
    assert {row.attempts for row in app.rows()} == {0}


@pytest.mark.parametrize("good", [[], [2]])
def test_error_that_does_not_say_whose_fault_it_is(sqlite, make_app, good):
    """It is the message's, if the broker takes another one, and the broker's if not."""
    app = make_app.with_rows(sqlite, 1, *good)
    app.fail_to_send(*[OperationalError("broken")] * 3)
    with nullcontext() if good else pytest.raises(OutboxError, match="message: broken"):
        app.relay().run_once()
    assert app.values() == good
    assert [row.attempts for row in app.rows()] == [len(good)]


class Special(Task):
    """A task that Celery alone does not know how to send."""

    def apply_async(self, *args, **options):
        return super().apply_async(*args, **options, headers={"special": True})


def test_task_that_sends_itself(sqlite, make_app):
    """A task with an apply_async of its own is sent by that after the commit, too."""
    options = {"name": "special", "base": Special}
    app = make_app(sqlite, lambda config: config.register_task(print, **options))
    app.defer(1, task="special")
    (message,) = app.received()
    assert message.headers["special"] is True


def test_relay_knows_no_task(sqlite, make_app):
    """A relay of another version sends what was stored, by name, with its options.

    They expire so long after the deferral, however late the relay is.
    """
    queue, before = unique(), datetime.now(UTC)

    def register(config):
        options = {"name": "new", "queue": queue, "priority": 3, "expires": 60}
        options["shadow_name"] = lambda *_: "shown"
        config.register_task(lambda request, x: None, **options)

    def register_older(config, **options):
        config.register_task(lambda request: None, name="new", **options)

    down = make_app(sqlite, register, down=True)
    for configure in register_older, partial(register_older, base=Special), None:
        down.defer(1, task="new", eta="2034-05-01T12:00:00Z")
        (row,) = down.rows()
        expires = loads(row.message)["options"]["expires"]
        assert (expires - before).total_seconds() == pytest.approx(60, abs=30)
        app = make_app(sqlite, configure)
        assert ("new" in app.celery.tasks) == bool(configure)
        assert app.relay().run_once() == 1
        (message,) = app.received(queue)
        assert message.payload[0] == [1]
        assert message.properties["priority"] == 3
        assert message.headers["shadow"] == "shown"
        assert message.headers["eta"].startswith("2034-05-01T12:00:00")
    down.defer(1, task="new", expires=600)
    (row,) = down.rows()
    expires = loads(row.message)["options"]["expires"]
    assert (expires - before).total_seconds() > 300  # the call wins over the task
