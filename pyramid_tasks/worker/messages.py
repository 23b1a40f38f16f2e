"""Messages that Celery cannot read: each is thrown away, and the worker goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.bootsteps import Step
from celery.exceptions import InvalidTaskError
from celery.utils.saferepr import saferepr
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import ContentDisallowed, DecodeError

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer
    from kombu.message import Message

logger = logging.getLogger(__name__)


class CheckedMessages(Step):
    """A part of a worker that looks at each message before Celery does.

    Celery trusts the headers of a message. With other values a worker ends, connects to
    the broker for ever, or keeps the message until the broker delivers it again.
    """

    label = "Checked messages"

    def __init__(self, consumer: Consumer, **options: Any) -> None:
        super().__init__(consumer, **options)
        create = consumer.create_task_handler
        consumer.create_task_handler = lambda: _checking(consumer, create())


def _checking(
    consumer: Consumer, handle: Callable[[Message], Any]
) -> Callable[[Message], Any]:
    zone = consumer.app.conf.timezone

    def handle_checked(message: Message) -> Any:
        problem = find_problem(message, zone)
        if problem is None:
            return handle(message)
        logger.error("%s. The message is thrown away.", problem)
        message.reject_log_error(logger, consumer.connection_errors)
        error = InvalidTaskError(problem)
        signals.task_rejected.send(sender=consumer, message=message, exc=error)
        return None

    return handle_checked


def find_problem(message: Message, zone: Any = None) -> str | None:
    """Return what Celery cannot use of a message outside the task, if anything.

    Args:
        message: A message as Kombu received it.
        zone: The time zone of the application.
    """
    headers, info = message.headers, message.delivery_info
    try:
        body = message.payload
    except (ContentDisallowed, DecodeError):  # Celery tells, if it can use the headers
        return _find_in_headers(headers, zone) if "task" in headers else None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return f"A message cannot be decoded: {error!r}"
    if not isinstance(info, dict):
        return _told("property 'delivery_info'", info, "an object", headers)
    return _find_in_parts(headers, body, zone)


def _find_in_parts(headers: dict[str, Any], body: Any, zone: Any) -> str | None:
    # Protocol 1 has its headers in the body. Celery takes a mixture of both too.
    is_first = isinstance(body, dict) and ("args" in body or "task" not in headers)
    if is_first:
        headers = {**body, **headers}
    if "task" not in headers:
        return None  # Celery tells
    problem = _find_in_headers(headers, zone)
    if problem or is_first:
        return problem
    try:
        _args, _kwargs, options = body
    except (TypeError, ValueError):
        return _told("body", body, "a list of arguments, keywords, options", headers)
    if options and not isinstance(options, dict):
        return _told("options", options, "an object", headers)
    return _find_in(options, headers) if options else None


def _find_in_headers(headers: dict[str, Any], zone: Any) -> str | None:
    if headers.get("id") is None:
        return _told("header 'id'", None, "a string", headers)
    for name in _TIMES:
        value = headers.get(name)
        if value is not None and not _is_time(value, zone):
            return _told(f"header {name!r}", value, "a time", headers)
    return _find_in(headers, headers)


def _find_in(options: dict[str, Any], headers: dict[str, Any]) -> str | None:
    for name in _RESERVED:
        if name in options:
            return _told(f"header {name!r}", options[name], "one for messages", headers)
    expected = _EXPECTED
    for name, value in options.items():
        if value is not None and name in expected:
            is_usable, what = expected[name]
            if not is_usable(value) and (value or name in _NEVER_EMPTY):
                return _told(f"header {name!r}", value, what, headers)
    return None


def _told(part: str, value: object, expected: str, headers: dict[str, Any]) -> str:
    name, id_ = (saferepr(headers.get(key), 255) for key in ("task", "id"))
    return (
        f"A message for the task {name} with the id {id_} has the {part} "
        f"{saferepr(value, 255)}, which is not {expected}"
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _are_names(value: Any) -> bool:
    return isinstance(value, (str, list, tuple, dict)) and all(map(_is_hashable, value))


def _is_time(value: Any, zone: Any) -> bool:
    try:
        maybe_make_aware(maybe_iso8601(value), zone)
    except (AttributeError, OverflowError, TypeError, ValueError):
        return False
    return True


def _is_count(value: Any) -> bool:
    return _are_limits((value, None))


def _are_limits(value: Any) -> bool:
    try:
        hard, soft = value
        return (not hard or float(hard) >= 0) and (not soft or float(soft) >= 0)
    except (OverflowError, TypeError, ValueError):
        return False


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), types) for name, types in _OF_SIGNATURE.items()
    )


def _are_signatures(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_signature, value))


_OF_SIGNATURE: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "args": (list, tuple),
    "kwargs": dict,
    "options": dict,
}

#: The values that Celery must be able to use outside the task: a check, and its words.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": (_is_text, "the name of a task"),
    "id": (_is_text, "a string"),
    "group": (_is_text, "a string"),
    "taskset": (_is_text, "a string"),
    "shadow": (_is_hashable, "a string"),
    "retries": (_is_count, "a number"),
    "timelimit": (_are_limits, "a list of two numbers"),
    "stamped_headers": (_are_names, "a list of strings"),
    "stamps": (_is_mapping, "an object"),
    "callbacks": (_are_signatures, "a list of signatures"),
    "errbacks": (_are_signatures, "a list of signatures"),
    "chain": (_are_signatures, "a list of signatures"),
    "chord": (_is_signature, "a signature"),
}

#: Celery takes any other header that is empty for one that is not there.
_NEVER_EMPTY = {"task", "id"}

_TIMES = ("eta", "expires")

#: Celery makes attributes of the headers, and uses these itself.
_RESERVED = ("get", "_children")
