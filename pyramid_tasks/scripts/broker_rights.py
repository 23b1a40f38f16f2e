"""Whether a broker lets an application send, without a message that stays."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..delivery.publisher import Publisher
from .listing import own_tasks, queue_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kombu.connection import Connection
    from kombu.entity import Queue

    from ..application import PyramidCelery

# Codes of AMQP.
_REFUSED, _NOT_FOUND, _OTHER_ARGUMENTS = 403, 404, 406


def ask_broker(app: PyramidCelery, wait: float) -> str:
    """Connect to the broker, and ask whether it takes messages.

    Args:
        app: The Celery application.
        wait: The number of seconds that each wait for the broker may take.

    Returns:
        The answer of the broker.

    Raises:
        Exception: The client of the broker raised it.
    """
    queues = _queues(app)
    with Publisher(app, wait).producer() as producer:
        if producer is None:
            return "is not asked: tasks run at once (task_always_eager)."
        connection = producer.connection
        try:
            match connection.transport.driver_type:
                case "amqp":
                    version = _ask_amqp(connection, queues)
                case "redis":
                    version = _ask_redis(connection, queues)
                case _:
                    return "answers."
        finally:
            connection.collect()
    names = ", ".join(sorted(queue.name for queue in queues))
    return f"answers: {version}, which takes messages for {names}."


def broker_remedy(error: Exception) -> str:
    """Return what to do about an error of :func:`ask_broker`."""
    code = getattr(error, "code", None)
    if code == _OTHER_ARGUMENTS:
        return (
            "The queue or the exchange is there with other arguments: delete it when "
            "it is empty, or name its arguments in celery.task_queues."
        )
    if code == _REFUSED or type(error).__name__ == "NoPermissionError":
        return "Give this right to the user in celery.broker_url."
    return (
        "Is celery.broker_url right, with user and password, does the server run, and "
        "can this machine reach it?"
    )


def _queues(app: PyramidCelery) -> list[Queue]:
    """Return the queues that tasks are sent to, or the default queue."""
    queues = [queue_of(app, task) for task in own_tasks(app)]
    found = {queue.name: queue for queue in queues if queue is not None}
    return list(found.values()) or [app.amqp.queues[app.conf.task_default_queue]]


def _ask_redis(connection: Connection, queues: Iterable[Queue]) -> str:
    """Queue what sending takes in a transaction, and discard the transaction.

    Redis checks rights, memory and replicas as it queues a command. So it says whether
    it would take a message, and takes none.
    """
    channel: Any = connection.default_channel
    client = channel.client
    commands: list[tuple[str, ...]] = []
    for queue in queues:
        bindings = channel.keyprefix_queue % (queue.exchange.name or queue.name)
        commands += ("SADD", bindings, ""), ("SMEMBERS", bindings)
        commands += ("LLEN", queue.name), ("LPUSH", queue.name, "")
    commands = [("MULTI",), *commands, ("DISCARD",)]
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    for command, answer in zip(
        commands, pipe.execute(raise_on_error=False), strict=True
    ):
        if isinstance(answer, Exception):
            raise type(answer)(f"{' '.join(command[:2])}: {answer}")
    version = ""
    with suppress(Exception):  # which it may not let this user ask
        version = client.info("server")["redis_version"]
    return f"Redis {version}".rstrip()


def _ask_amqp(connection: Connection, queues: Iterable[Queue]) -> str:
    """Declare what is there, and publish in a transaction that is rolled back.

    RabbitMQ checks rights as it reads a message.
    """
    for queue in queues:
        is_made = False
        with _channel(connection, _NOT_FOUND) as channel:
            # RabbitMQ ends a channel on which a queue is not found.
            channel.queue_declare(queue.name, passive=True)
            queue(channel).declare()
            is_made = True
        if not is_made:
            # The first message makes it. RabbitMQ looks at the right to do so, and then
            # refuses such a queue.
            with _channel(connection, _OTHER_ARGUMENTS) as channel:
                never = {"x-expires": 0}
                channel.queue_declare(queue.name, exclusive=True, arguments=never)
        with _channel(connection, _NOT_FOUND) as channel:
            channel.tx_select()
            # The method of the class asks for no confirm, which goes with no
            # transaction.
            type(channel).basic_publish(
                channel,
                channel.prepare_message(b""),
                exchange=queue.exchange.name,
                routing_key=queue.routing_key or queue.name,
            )
            channel.tx_rollback()
    said = getattr(connection.connection, "server_properties", {})
    return f"{said.get('product', 'AMQP')} {said.get('version', '')}".rstrip()


@contextmanager
def _channel(connection: Connection, expected: int) -> Iterator[Any]:
    """Give a channel, and end the block at an error with the expected code."""
    try:
        with connection.channel() as channel:
            yield channel
    except connection.channel_errors as error:
        if getattr(error, "code", None) != expected:
            raise
