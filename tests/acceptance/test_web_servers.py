"""Web servers that load an application, and then fork: gunicorn and uWSGI."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest
from databases import database
from redis import Redis
from servers import listens, need_web_server
from shop import Shop, place
from support import DEADLINE, free_port, need_service, start, wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.server]

BROKERS = {
    "redis": "redis://localhost:6379/0",
    "rabbitmq": "amqp://guest:guest@localhost:5672//",
}
#: The brokers and the deliveries of the shops. Celery subscribes to the result of a
#: task that is sent immediately. The server forks soon after the last one has deferred.
SHOPS = [
    ("redis", "immediate"),
    ("rabbitmq", "commit"),
    ("rabbitmq", "outbox"),
    ("redis", "outbox"),
]
GUNICORN = "gunicorn --preload --workers=2 --bind=localhost:{port} --paste={ini}"
UWSGI = (
    "uwsgi --master --processes=2 --need-app --http-socket=localhost:{port} "
    "--paste=config:{ini}"
)
SERVERS = {
    "sync": GUNICORN,
    "gthread": f"{GUNICORN} --threads=4",
    "gevent": f"{GUNICORN} --worker-class=gevent",
    "uwsgi": UWSGI,
    "uwsgi-threads": f"{UWSGI} --enable-threads",
    "uwsgi-lazy": f"{UWSGI} --lazy-apps",
    "uwsgi-lazy-threads": f"{UWSGI} --lazy-apps --enable-threads",
}
ORDERS = 12

#: The first order of each server, which is placed before the server forks.
first_orders = count(1000, 1000)


class WebShop(Shop):
    """A shop of a broker and a delivery, for several servers."""

    def __init__(self, folder, url, broker, delivery):
        self.settings = {"url": url, "pyramid_tasks__delivery": delivery}
        if broker == "redis":
            self.settings["celery__result_backend"] = BROKERS[broker]
        super().__init__(folder, url, BROKERS[broker])

    def configure(self, name, **settings):
        """Write an ini for a server."""
        return self.write_ini(name, broker=self.broker, **self.settings, **settings)


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Return a shop for each broker and delivery, with a database of its own."""
    need_service("Redis", 6379, "redis-server --daemonize yes")
    need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
    with ExitStack() as stack:
        found = []
        for broker, delivery in SHOPS:
            folder = tmp_path_factory.mktemp(f"{broker}-{delivery}")
            url = stack.enter_context(database("postgresql", folder))
            found.append(WebShop(folder, url, broker, delivery))
        yield found
        for shop in found:
            shop.engine.dispose()
            Redis().delete(shop.queue, f"_kombu.binding.{shop.queue}")


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_shared(server, shops, tmp_path):
    """Each task of each child is sent once, and no request waits for another process.

    Although a task was deferred, and an engine used, before the server forked.
    """
    need_web_server(server.partition("-")[0])
    first = next(first_orders)
    ini, port = tmp_path / "site.ini", free_port()
    # A lazy server loads the application in each child.
    before = {} if "lazy" in server else {"outboxapp__first_order": first}
    inis = [shop.configure(f"{first}.ini", **before) for shop in shops]
    apps = [f"/{number} = config:{path}" for number, path in enumerate(inis)]
    ini.write_text("\n".join(["[composite:main]", "use = egg:Paste#urlmap", *apps]))
    numbers = count(first + 1)
    pids = set()

    def place_orders():
        placed = [next(numbers) for _ in range(ORDERS)]
        urls = [
            f"http://localhost:{port}/{shop}/orders/{number}"
            for number in placed
            for shop in range(len(shops))
        ]
        for status, answer in clients.map(lambda url: place(url, DEADLINE), urls):
            assert status == 200, (answer, process.output)
            pids.add(json.loads(answer)["pid"])
        return len(pids) > 1

    command = SERVERS[server].format(port=port, ini=ini).split()
    # gunicorn has a socket of its own at home.
    running = start(*command, cwd=tmp_path, HOME=str(tmp_path))
    with running as process, ThreadPoolExecutor(8) as clients:
        process.wait_until(lambda: listens(port), "the server listens")
        process.wait_until(place_orders, "two processes have answered")
        for shop in shops:
            wait_until(lambda shop=shop: not shop.outbox(), what=lambda: process.output)
            expected = {
                task_id for number, task_id in shop.orders().items() if number >= first
            }
            sent = shop.sent()
            assert {each: sent[each] for each in expected} == dict.fromkeys(expected, 1)
