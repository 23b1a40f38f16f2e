"""Whose fault an error is: that of the broker, or that of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from kombu.connection import Connection

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


def is_of_transport(error: Exception, connection: Connection) -> bool:
    """Whether the broker or its client raised an error."""
    kinds = (OperationalError, OSError)
    kinds += connection.connection_errors + connection.channel_errors
    kinds += connection.recoverable_connection_errors
    return isinstance(error, kinds)


def is_state(error: BaseException | None) -> bool:
    """Whether an error is about the state of a broker that accepts connections."""
    while error is not None:
        if isinstance(error, TimeoutError) or type(error).__name__ in _STATES:
            return True
        if str(error).startswith(_REDIS_WORDS):
            return True
        error = error.__cause__
    return False


def names_content(error: Exception) -> bool:
    """Whether an error is about the content of a message."""
    words = str(error).lower()
    return any(each in words for each in _CONTENT_WORDS)


def in_words(error: BaseException) -> str:
    """Return the text of an error, which may have none."""
    return str(error) or type(error).__name__
