"""The options of calls and of tasks, wherever they stand.

They stand in code, in a route, in a schedule and in ``task_annotations``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from functools import cache
from inspect import signature
from typing import Any

from celery import Celery, Task

from ..exceptions import near_names
from .importable import check_symbol
from .kinds import (
    MIN_SECONDS,
    Check,
    check_bool,
    check_delivery_mode,
    check_exchange_type,
    check_links,
    check_rate,
    check_task_id,
    dictionary,
    did_you_mean,
    is_time,
    of,
    seconds,
    shown,
    that,
)
from .serializers import check_compression, check_serializer
from .transport_options import check_publish_policy

_TEXT = of("text: put it in quotes", str)
_NAME = of("a name: put it in double quotes if it is a number", str, like="name")
_WHOLE = of("a whole number", int)
_EXPIRES = that(
    "a number of seconds, a datetime, or text in the form of ISO 8601",
    lambda value: (
        is_time(value)
        if isinstance(value, (str, datetime))
        else not seconds(MIN_SECONDS)(value)
    ),
)

#: Allowed values of the options that tasks and calls share.
_SHARED: dict[str, Check] = {
    "compression": check_compression,
    "delivery_mode": check_delivery_mode,
    "exchange": _NAME,
    "expires": _EXPIRES,
    "ignore_result": check_bool,
    "immediate": check_bool,
    "mandatory": check_bool,
    "priority": that(
        "a whole number from 0 to 255",
        lambda value: isinstance(value, int) and 0 <= value <= 255,  # noqa: PLR2004
    ),
    "queue": _NAME,
    "routing_key": _NAME,
    "serializer": check_serializer,
    "soft_time_limit": seconds(),
    "time_limit": seconds(),
}
_CALL: dict[str, Check] = {
    **_SHARED,
    **dict.fromkeys(
        ("parent_id", "root_id", "group_id", "shadow", "argsrepr", "kwargsrepr"), _TEXT
    ),
    **dict.fromkeys(("message_id", "correlation_id", "app_id", "user_id"), _TEXT),
    **dict.fromkeys(("content_type", "content_encoding", "cluster_id"), _TEXT),
    **dict.fromkeys(("delivery", "origin", "route_name"), _TEXT),
    **dict.fromkeys(("group_index", "retries", "replaced_task_nesting"), _WHOLE),
    **dict.fromkeys(("timeout", "confirm_timeout"), seconds()),
    "add_to_parent": check_bool,
    "chain": check_links,
    "chord": check_links,
    "connection": of("a connection of kombu", like="connected"),
    "countdown": seconds(MIN_SECONDS),
    "eta": that("a datetime, or text in the form of ISO 8601", is_time),
    "exchange_type": check_exchange_type,
    "expiration": that("a number of seconds", lambda value: float(value) >= 0),
    "headers": dictionary(),
    "link": check_links,
    "link_error": check_links,
    "producer": of("a producer of kombu", like="publish"),
    "publisher": of("a producer of kombu", like="publish"),
    "reply_to": _NAME,
    "retry": check_bool,
    "retry_policy": check_publish_policy,
    "stamped_headers": of("a list of names", list, tuple, set, frozenset),
    "task_id": check_task_id,
}
#: The names of the options that Celery or this package reads: the names in
#: ``CallOptions``, whose module no web process needs.
CALL_OPTIONS = frozenset(
    {*_CALL, "declare", "result_cls", "router", "task_type", "timestamp"}
)

_ERRORS = that(
    "a tuple of exceptions, such as (OSError,)",
    lambda value: (
        isinstance(value, (tuple, list, set, frozenset))
        and all(issubclass(each, BaseException) for each in value)
    ),
)
_RETRY = {**_CALL, "max_retries": of("a number", int, float)}


def _check_retry(options: MutableMapping[str, Any]) -> None:
    """Check the arguments of ``task.retry()``, their names and their values.

    Raises:
        ValueError: Nobody reads an option, or Celery cannot use its value.
    """
    known = {*CALL_OPTIONS, *signature(Task.retry).parameters} - {"self"}
    for option, near in misspelt_options(options, known):
        raise ValueError(f"the unknown {option}. Did you mean {near}?")
    check_options(options, _RETRY)


_TASK: dict[str, Check] = {
    **_SHARED,
    **dict.fromkeys(
        (
            *("abstract", "acks_late", "acks_on_failure_or_timeout", "bind", "inbox"),
            *("lazy", "pydantic", "pydantic_strict", "reject_on_worker_lost"),
            *("retry_jitter", "send_events", "shared", "store_eager_result"),
            *("store_errors_even_if_ignored", "tm", "track_started", "trail", "typing"),
        ),
        check_bool,
    ),
    "Request": check_symbol,
    "Strategy": check_symbol,
    "autoretry_for": _ERRORS,
    "base": that("a class below celery.Task", lambda value: issubclass(value, Task)),
    "default_retry_delay": seconds(),
    "dont_autoretry_for": _ERRORS,
    "filter": that("a function", callable),
    "max_retries": _RETRY["max_retries"],
    "pydantic_context": dictionary(),
    "pydantic_dump_kwargs": dictionary(),
    "rate_limit": check_rate,
    "resultrepr_maxsize": _WHOLE,
    "retry_backoff": that("a number", lambda value: float(value) < math.inf),
    "retry_backoff_max": that("a number", lambda value: int(value) >= 0),
    "retry_kwargs": dictionary(_check_retry),
    "throws": that(
        "an exception or a tuple of exceptions",
        lambda value: isinstance(None, value) in {True, False},
    ),
}
# The attributes that Celery makes from the function and the application.
_NO_OPTIONS = {"app", "name", "run"}
# An application can replace these. getattr() would bind the class to an application.
_METHODS = {name for name, each in vars(Task).items() if callable(each)} - {*_TASK}

#: The names of the options that Celery or this package reads of a task.
TASK_OPTIONS = {
    *_TASK,
    *(name for name in dir(Task) if not name.startswith("_")),
} - _NO_OPTIONS


def check_options(
    options: MutableMapping[str, Any], kinds: Mapping[str, Check] = _CALL
) -> None:
    """Check the values of options, by default the options of a call.

    Celery treats an empty value as not given.

    Raises:
        ValueError: Celery cannot use a value. The message begins with the option.
    """
    for option, value in options.items():
        if value and (check := kinds.get(option)) is not None:
            try:
                changed = check(value)
            except ValueError as error:
                raise ValueError(f"{option} {error}") from None
            if changed is not None:
                options[option] = changed


def check_task_options(options: MutableMapping[str, Any]) -> None:
    """Check the values of the options that a task is registered with.

    Raises:
        ValueError: Celery cannot use a value. The message begins with the option.
    """
    check_options(options, _TASK)
    for option, value in options.items():
        if option in _NO_OPTIONS:
            raise ValueError(f"{option} is no option: Celery has its own.")
        if option in _METHODS and not callable(value):
            raise ValueError(f"{option} = {shown(value)} is not a function.")


def misspelt_options(
    options: Iterable[str], known: Iterable[str] = CALL_OPTIONS
) -> Iterator[tuple[str, str]]:
    """Yield the options that nobody reads, each with the option that it is near to.

    An option without a similar known one may be the application's, as may a stamp.
    """
    for option in options:
        if option not in known:
            for near in near_names(option, known, cutoff=0.75):
                yield option, near


def check_scheduled(options: MutableMapping[str, Any]) -> None:
    """Check the options of an entry in a schedule, their names and their values.

    Raises:
        ValueError: Nobody reads an option, or Celery cannot use its value.
    """
    for option in options:
        if option in {"args", "kwargs"}:
            raise ValueError(f"{option} is no option: it stands beside the options.")
    for option, near in misspelt_options(options):
        raise ValueError(f"{option} is no option. Did you mean {near}?")
    check_options(options)


@cache
def _options_of_routes() -> frozenset[str]:
    # The arguments of a call are sent, whatever a route says.
    arguments = signature(Celery.send_task).parameters
    return CALL_OPTIONS - {"delivery", "ignore_result", *arguments}


def check_routed(options: MutableMapping[str, Any]) -> None:
    """Check the options of a route, their names and their values.

    Raises:
        ValueError: A route cannot have one of the options, or Celery cannot use its
            value.
    """
    known = _options_of_routes()
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known) or (
                " Write queue, routing_key, exchange, priority or another option of a "
                "message."
            )
            raise ValueError(f"{option} is not an option of a route.{hint}")
        if value == "":
            raise ValueError(f"{option} is empty: write a value, or leave it out.")
    check_options(options)
