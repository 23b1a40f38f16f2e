"""A fault of the broker is never a fault of a message."""

from __future__ import annotations

import subprocess

import pytest
from redis import Redis
from servers import redis_server
from support import need_service, unique

from pyramid_tasks.exceptions import OutboxError


def check(make_app, engine, *, mend, **settings):
    """Send three messages in vain, mend the broker, and send them."""
    make_app(engine, down=True).defer(1, 2, 3)
    app = make_app(engine, **settings)
    for _ in range(2):
        with pytest.raises(OutboxError, match=r"is down \(.+\)"):
            app.relay().run_once()
    assert [(row.attempts, row.set_aside) for row in app.rows()] == [(0, False)] * 3
    mend()
    if mend is not bool:
        assert app.relay().run_once() == 3
        assert app.rows() == []


@pytest.mark.server
def test_redis_gives_no_right(sqlite, make_app, tmp_path):
    """A user who may not write waits for the right to."""
    with redis_server(tmp_path) as server, Redis(port=server.port) as client:
        client.execute_command("ACL SETUSER shop on >secret ~* &* +@all -lpush")
        url = f"redis://shop:secret@localhost:{server.port}/0"
        check(
            make_app,
            sqlite,
            mend=lambda: client.execute_command("ACL SETUSER shop +lpush"),
            celery__broker_url=url,
        )


@pytest.fixture
def rabbitmq():
    """Return a function that runs rabbitmqctl; a virtual host with one user."""
    need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
    name = unique()

    def control(*arguments):
        command = ["rabbitmqctl", "--quiet", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    try:
        control("add_vhost", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("rabbitmqctl cannot be run by this user")
    control("add_user", name, "secret")
    control("set_permissions", "-p", name, name, ".*", ".*", ".*")
    yield name, control
    control("delete_user", name)
    control("delete_vhost", name)


@pytest.mark.server
def test_rabbitmq_gives_no_right(sqlite, make_app, rabbitmq):
    """So does a user of RabbitMQ."""
    name, control = rabbitmq
    control("set_permissions", "-p", name, name, ".*", "nothing", ".*")
    check(
        make_app,
        sqlite,
        mend=lambda: control("set_permissions", "-p", name, name, ".*", ".*", ".*"),
        celery__broker_url=f"amqp://{name}:secret@localhost/{name}",
    )


@pytest.mark.server
def test_rabbitmq_has_a_full_queue(sqlite, make_app, rabbitmq):
    """What a full queue rejects waits for room."""
    name, control = rabbitmq
    full = '{"max-length": 0, "overflow": "reject-publish"}'
    control("set_policy", "-p", name, "full", ".*", full)
    check(
        make_app,
        sqlite,
        mend=lambda: control("clear_policy", "-p", name, "full"),
        celery__broker_url=f"amqp://{name}:secret@localhost/{name}",
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"broker_url": "sentinel://localhost:1"},
        {
            "broker_url": "rediss://localhost:1",
            "broker_use_ssl": {"ssl_cert_reqs": "nonsense"},
        },
    ],
    ids=lambda settings: settings["broker_url"],
)
def test_setting_that_a_client_does_not_understand(sqlite, make_app, settings):
    """An error while connecting is about no message."""
    settings = {f"celery__{key}": value for key, value in settings.items()}
    check(make_app, sqlite, mend=bool, **settings)


def test_one_reason_for_all(sqlite, make_app):
    """When every message is refused for one reason, none of them is the cause."""

    def refuse(x):
        raise ValueError("a router that is broken")

    make_app(sqlite, down=True).defer(*range(5))
    app = make_app(sqlite)
    app.before_sending(refuse)
    with pytest.raises(OutboxError, match="takes no message: a router that is broken"):
        app.relay().run_once()
    assert {row.attempts for row in app.rows()} == {0}


def test_relay_knows_no_task(sqlite, make_app):
    """A relay of another version sends what was stored, by name, with its options."""
    down = make_app(
        sqlite,
        lambda config: config.register_task(
            lambda request, x, y: None, name="new", queue="urgent", priority=3
        ),
        down=True,
    )
    with down.request() as request, request.tm:
        request.defer_task("new", 1, 2)
    app = make_app(
        sqlite, lambda config: config.register_task(lambda request: None, name="new")
    )
    assert "new" in app.celery.tasks
    without = make_app(sqlite)
    assert "new" not in without.celery.tasks
    for each in app, without:
        assert len(down.rows()) == 1
        assert each.relay().run_once() == 1
        (message,) = each.received("urgent")
        assert message.payload[0] == [1, 2]
        assert message.properties["priority"] == 3
        if each is app:
            with down.request() as request, request.tm:
                request.defer_task("new", 1, 2)
