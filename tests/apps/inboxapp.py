"""A shop whose tasks have an inbox, and a broker that delivers every message twice.

Each order is a task that ships it: it takes one from the stock and defers a notice.
"""

import time

import outboxapp
from celery.signals import after_task_publish
from outboxapp import Die, die_when_published, execute
from pyramid.config import Configurator
from sqlalchemy.exc import DBAPIError

from pyramid_tasks import task
from pyramid_tasks.registry import get_tasks

TABLES = """
CREATE TABLE orders (id integer PRIMARY KEY, task_id varchar(40) NOT NULL);
CREATE TABLE stock (pieces integer);
CREATE TABLE shipments (order_id integer, task_id varchar(40));
CREATE TABLE notices (order_id integer, task_id varchar(40));
CREATE TABLE effects (name varchar(40), task_id varchar(40));
INSERT INTO stock VALUES (0);
"""


def create_tables(url):
    """Make the tables, those of outbox and inbox too."""
    outboxapp.create_tables(url, TABLES)


def place_order(request):
    """POST /orders/{id}?end=...: an order, and its task; then end in some way."""
    number, end = int(request.matchdict["id"]), request.GET.get("end")
    task_id = request.defer_task(fulfil, number).id
    execute(
        request, "INSERT INTO orders VALUES (:id, :task_id)", id=number, task_id=task_id
    )
    if end == "committed":
        request.tm.get().join(Die(request.tm))
    elif end == "published":
        die_when_published(request)
    return {"task_id": task_id}


@task(autoretry_for=(DBAPIError,), max_retries=None, default_retry_delay=1)
def fulfil(request, number):
    time.sleep(float(request.registry.settings.get("inboxapp.work", 0)))
    execute(request, "INSERT INTO shipments VALUES (:id, :task_id)", id=number)
    request.defer_task(notify, number)
    execute(request, "UPDATE stock SET pieces = pieces - 1")


@task(autoretry_for=(DBAPIError,), max_retries=None, default_retry_delay=1)
def notify(request, number):
    execute(request, "INSERT INTO notices VALUES (:id, :task_id)", id=number)


@task
def change(request, *args):
    """Note an effect, and return its name and the values of the tasks before."""
    *before, name = args
    execute(request, "INSERT INTO effects VALUES (:name, :task_id)", name=name)
    return [name, *before]


@task
def die(request):
    """Take the process along, as a leak of memory would."""
    outboxapp.die()


def deliver_twice(app):
    """Return a function that sends each message once more after it was sent."""

    def send_again(headers, body, exchange, routing_key, **_):
        with app.producer_pool.acquire(block=True) as producer:
            producer.publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                headers=headers,
                correlation_id=headers["id"],
                serializer="json",
            )

    return send_again


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include(outboxapp.with_database)
        config.scan(__name__)
        config.add_route("order", "/orders/{id}", request_method="POST")
        config.add_view(place_order, route_name="order", renderer="json")
        if settings.get("inboxapp.twice"):
            # Kept by the registry, as signals keep weak references.
            config.registry["twice"] = deliver_twice(get_tasks(config.registry).app)
            after_task_publish.connect(config.registry["twice"])
        return config.make_wsgi_app()
