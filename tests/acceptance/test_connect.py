"""``ptasks --check --connect``: what the servers of an application answer."""

import json
import re

import pytest
from databases import database
from kombu import Connection, Exchange, Queue
from proxy import Proxy
from redis import Redis
from servers import redis_server, virtual_host
from sqlalchemy import create_engine, make_url, text
from support import need_service, run, unique

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from pyramid_tasks.contrib.outbox_table import metadata

pytestmark = [pytest.mark.acceptance, pytest.mark.server]

REDIS = "redis://localhost:6379/0"
TABLES = (
    "pyramid_tasks_outbox, pyramid_tasks_outbox_relay, pyramid_tasks_inbox can be used"
)


@pytest.fixture
def connect(tmp_path):
    """Return a function that runs the command for some servers."""
    need_service("Redis", 6379, "redis-server --daemonize yes")

    def connect(broker, url="", *options, queue="", more="", results=REDIS):
        outbox = f"pyramid_tasks.delivery = {'outbox' if url else 'commit'}\n"
        outbox += "pyramid_tasks.inbox = true\n" if url else ""
        (tmp_path / "config.ini").write_text(
            "[app:main]\nuse = call:outboxapp:main\n"
            f"sqlalchemy.url = {url or 'sqlite://'}\n{outbox}"
            f"celery.broker_url = {broker}\ncelery.result_backend = {results}\n"
            f"celery.task_default_queue = {queue or unique()}\n{more}\n"
        )
        command = ("ptasks", "--check", "--connect", *options, "config.ini")
        done = run(*command, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stdout
        return done

    return connect


@pytest.fixture(scope="module")
def rabbitmq():
    """Return a virtual host with a user of its name, and rabbitmqctl."""
    with virtual_host() as found:
        yield found


@pytest.fixture
def url(request, tmp_path):
    """Return the URL of a database with the tables."""
    with database(request.param, tmp_path) as url:
        metadata.create_all(create_engine(url))
        yield url


def check_empty(url, broker, queue):
    """Check that nothing has been left behind."""
    with create_engine(url).connect() as connection:
        for table in metadata.sorted_tables:
            assert connection.execute(table.select()).all() == []
    if broker.startswith("redis"):
        assert list(Redis().scan_iter(f"*{queue}*", 1000)) == []


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_and_redis(connect, url):
    """Servers that give all rights say so, and are left as they were.

    The broker is asked about the queue that the tasks are routed to.
    """
    queue = unique()
    routes = f'celery.task_routes = {{"outboxapp.fulfil": "{queue}-own"}}'
    done = connect(REDIS, url, queue=queue, more=routes)
    assert done.returncode == 0, done.stdout
    broker, results, shop, last = done.stdout.splitlines()
    assert re.fullmatch(
        rf"The broker {REDIS} answers: Redis \d.*, which takes messages for "
        rf"{queue}-own\.",
        broker,
    )
    assert results == f"The result backend {REDIS} answers, and keeps results."
    assert re.match(rf"The database {re.escape(url)} answers: postgresql \d", shop)
    assert TABLES in shop
    assert last == "No problems found."
    check_empty(url, REDIS, queue)


@pytest.mark.parametrize("url", ["mariadb"], indirect=True)
def test_mariadb_and_rabbitmq(connect, url, rabbitmq):
    """So do others, as JSON, before their queue is made and afterwards."""
    name, _ = rabbitmq
    broker = f"amqp://{name}:secret@localhost/{name}"
    queue = Queue("q", Exchange("q"), "q")
    for is_made in False, True:
        done = connect(broker, url, "--json", queue="q")
        assert done.returncode == 0, done.stdout
        found = json.loads(done.stdout)
        assert found["problems"] == []
        assert all(each["ok"] for each in found["servers"])
        first, _, shop = found["servers"]
        assert first["server"] == f"The broker amqp://{name}:**@localhost/{name}"
        assert "answers: RabbitMQ " in first["message"]
        assert "answers: mariadb " in shop["message"]
        with Connection(broker) as connection, connection.channel() as channel:
            if is_made:
                assert channel.queue_declare("q", passive=True).message_count == 0
            else:
                with pytest.raises(connection.channel_errors, match="no queue 'q'"):
                    channel.queue_declare("q", passive=True)
                queue(connection.channel()).declare()
    check_empty(url, "", "")


def failing(done):
    """Return the line of the only server that fails."""
    *lines, last = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout
    assert last == "1 problem found."
    (line,) = [line for line in lines if " answers" not in line]
    return line


def test_redis_gives_no_right(connect, tmp_path):
    """A user who may not publish is told the command and the key."""
    exchange = "celery.task_default_exchange = shop"
    with redis_server(tmp_path) as server, Redis(port=server.port) as client:
        broker = f"redis://shop:secret@localhost:{server.port}"
        client.execute_command("ACL SETUSER shop on >secret ~* &* +@all -lpush")
        done = connect(broker, queue="q")
        client.execute_command("ACL SETUSER shop resetkeys ~q ~_kombu.binding.q +lpush")
        other = connect(broker, queue="q", more=exchange)
        assert client.keys() == []
    assert re.search(r"LPUSH q: .*permission.* Give this right to", failing(done))
    assert "SADD _kombu.binding.shop: " in failing(other)


@pytest.mark.parametrize("rights", [("nothing", ".*"), (".*", "nothing")])
def test_rabbitmq_gives_no_right(connect, rabbitmq, rights):
    """So is a user of RabbitMQ who may not make the queue, or not write."""
    name, control = rabbitmq
    control("set_permissions", "-p", name, name, *rights, ".*")
    try:
        done = connect(f"amqp://{name}:secret@localhost/{name}")
    finally:
        control("set_permissions", "-p", name, name, ".*", ".*", ".*")
    assert re.search(r"ACCESS_REFUSED.* Give this right to the user", failing(done))


@pytest.mark.parametrize(("key", "status"), [("right", 0), ("wrong", 1)])
def test_rights_of_a_topic(connect, rabbitmq, key, status):
    """RabbitMQ is asked with the routing key of the queue, which it may refuse."""
    name, control = rabbitmq
    control("set_topic_permissions", "-p", name, name, "topics", "^right$", ".*")
    broker = f"amqp://{name}:secret@localhost/{name}"
    queue = {"exchange": "topics", "exchange_type": "topic", "routing_key": key}
    with Connection(broker) as connection:
        Queue.from_dict("topical", **queue)(connection.channel()).declare()
    queues = f"celery.task_queues = {json.dumps({'topical': queue})}"
    done = connect(broker, queue="topical", more=queues)
    assert done.returncode == status, done.stdout


def test_queue_with_other_arguments(connect, rabbitmq):
    """A queue that Celery could not declare is found."""
    name, _ = rabbitmq
    broker = f"amqp://{name}:secret@localhost/{name}"
    with Connection(broker) as connection:
        queue = Queue("prior", Exchange("prior"), "prior", max_priority=5)
        queue(connection.channel()).declare()
    done = connect(broker, more='celery.task_routes = {"*": "prior"}')
    assert re.search(r"x-max-priority.* is there with other arguments", failing(done))


@pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
def test_database_gives_no_right(connect, url):
    """A user who may read but not insert is told what to grant."""
    name = unique()
    user = make_url(url).set(username=name, password="secret")
    grantee, password, owned = name, "PASSWORD", [f"DROP OWNED BY {name}"]
    if "mysql" in url:
        grantee, password, owned = f"'{name}'@'%'", "IDENTIFIED BY", []
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE USER {grantee} {password} 'secret'"))
        for table in metadata.sorted_tables:
            connection.execute(text(f"GRANT SELECT ON {table.name} TO {grantee}"))
    try:
        done = connect(REDIS, user.render_as_string(hide_password=False))
    finally:
        with engine.begin() as connection:
            for statement in [*owned, f"DROP USER {grantee}"]:
                connection.execute(text(statement))
    line = failing(done)
    assert "denied" in line
    assert f"Grant the user {name} SELECT, INSERT, UPDATE and DELETE" in line
    assert ("USAGE on the sequence" in line) is url.startswith("postgresql")


@pytest.mark.parametrize("table", ["pyramid_tasks_outbox", "pyramid_tasks_inbox"])
def test_table_is_missing(connect, tmp_path, table):
    """A table that is missing is named, and what makes it."""
    with database("sqlite", tmp_path) as url:
        others = [each for each in metadata.sorted_tables if each.name != table]
        metadata.create_all(create_engine(url), others)
        line = failing(connect(REDIS, url))
    assert f"has no table {table}. Make it with celery --ini FILE outbox create" in line


@pytest.mark.parametrize("url", ["postgresql", "mariadb", "sqlite"], indirect=True)
def test_table_of_another_version(connect, url):
    """A table without a column that is used may be that of another version."""
    with create_engine(url).begin() as connection:
        drop = "ALTER TABLE pyramid_tasks_outbox DROP COLUMN task_id"
        connection.execute(text(drop))
    said = r"task_id.* Are the tables those of this version\?"
    assert re.search(said, failing(connect(REDIS, url)))


@pytest.mark.parametrize("server", ["broker", "amqp", "results", "database"])
def test_frozen_server(connect, server):
    """A server that takes the connection and never answers ends no check."""
    ports = {"amqp": 5672, "database": 5432}
    proxy = Proxy(ports.get(server, 6379))
    proxy.silence()
    address = f"localhost:{proxy.port}"
    servers = {"broker": REDIS, "url": "", "results": REDIS} | {
        "amqp": {"broker": f"amqp://{address}"},
        "broker": {"broker": f"redis://{address}"},
        "database": {"url": f"postgresql+psycopg://postgres@{address}/x"},
        "results": {"results": f"redis://{address}"},
    }[server]
    try:
        done = connect(**servers)
    finally:
        proxy.close()
    line = failing(done)
    assert address in line
    assert re.search(r"[Tt]im(ed|e)[- ]?out|does not answer within 10 s", line), line


def test_wrong_setting(connect):
    """While a setting is wrong, no server is asked: not one in its place either."""
    done = connect(f"{REDIS}?ssl_cert_reqs=perhaps")
    assert done.returncode == 1
    said = "No server was asked: mend the settings first."
    assert done.stdout.splitlines()[-2:] == [said, "1 problem found."]
