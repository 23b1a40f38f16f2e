"""The cause of an error: the broker, or a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError
from kombu.serialization import dumps

from .._kombu import raise_limit
from ..configuration.call_options import check_options
from .canvas import nodes

if TYPE_CHECKING:
    from celery import Celery
    from kombu.connection import Connection

    from .canvas import Canvas

# Errors about the state of a broker or the rights that it gives, whatever the message:
# of Redis, and of RabbitMQ.
_STATES = {
    *("BusyLoadingError", "OutOfMemoryError", "ReadOnlyError", "NoPermissionError"),
    *("AuthenticationError", "AccessRefused", "MessageNacked", "ResourceError"),
    "TimeoutError",
}
_REDIS_WORDS = (
    *("LOADING", "MISCONF", "NOREPLICAS", "OOM", "READONLY"),
    *("NOPERM", "NOAUTH"),
)

# Words of a broker or its client about the content of a message.
_CONTENT_WORDS = ("too large", "larger than", "overflow", "bulk length", "too long")


class BrokerDown(Exception):  # noqa: N818 a state, not a mistake
    """The broker takes no message at the moment, whatever the message is."""


class SendingFailed(Exception):  # noqa: N818 of the broker or of the message
    """The broker did not take a message, and does not say whose fault that is."""


class MessageFault(Exception):  # noqa: N818 as the others
    """No broker could take this message, whatever its state is."""


def is_of_transport(error: BaseException, connection: Connection) -> bool:
    """Whether the broker or its client raised an error."""
    kinds = (OperationalError, OSError)
    kinds += connection.connection_errors + connection.channel_errors
    kinds += connection.recoverable_connection_errors
    return isinstance(error, kinds)


def is_state(error: BaseException | None) -> bool:
    """Whether an error is about the state of a broker that accepts connections."""
    while error is not None:
        if type(error).__name__ in _STATES:
            return True
        if str(error).startswith(_REDIS_WORDS):
            return True
        error = error.__cause__
    return False


def names_content(error: Exception) -> bool:
    """Whether an error is about the content of a message."""
    words = str(error).lower()
    return any(each in words for each in _CONTENT_WORDS)


def own_fault(app: Celery, canvas: Canvas) -> str | None:
    """Return why a canvas cannot be a message at all, if that is so.

    Clients of brokers let some of these errors look like errors of the connection.
    """
    try:
        for node in nodes(canvas):
            call = node.signature
            check_options(call["options"])
            if node.is_task:
                serializer = call["options"].get("serializer")
                body = call["args"], call["kwargs"]
                dumps(body, serializer or app.conf.task_serializer)
    except Exception as error:  # noqa: BLE001 whatever a message can cause
        raise_limit(error)
        return in_words(error)
    return None


def in_words(error: BaseException) -> str:
    """Return the text of an error, which may have none."""
    return str(error) or type(error).__name__
