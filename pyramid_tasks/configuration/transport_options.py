"""The options of the transports of brokers and results.

Each transport reads options of its own and ignores others, and a client looks at most
when it connects. So an unknown name is left alone, unless a known one is near.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from kombu.connection import Connection
from kombu.utils.functional import retry_over_time

from ..coercion import displayed, to_bool
from ..exceptions import SettingError, UnknownSetting, near_names
from .importable import check_symbol
from .kinds import near, of

if TYPE_CHECKING:
    from ..settings import Report

#: Returns a value as the transport takes it, or raises ``ValueError`` with what it is
#: not.
_Reader = Callable[[Any], Any]


def read_transport_options(
    setting: str, options: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Return options as a transport takes them, and report those that it cannot take.

    Args:
        setting: The name of the setting that has the options.
        options: The options as the configuration has them.
        report: Called with each mistake, whose key is the name of an option.
    """
    result: dict[str, Any] = {}
    for option, value in options.items():
        name = f"{setting}.{option}"
        if option in READERS:
            try:
                result[option] = READERS[option](value)
            except ValueError as error:
                problem = f"= {displayed(option, str(value))} {error}"
                report(SettingError(name, problem))
        else:
            result[option] = value
            for known in near_names(str(option), _NEAR, cutoff=0.85):
                problem = "is an option that nobody reads."
                report(UnknownSetting(name, problem, known))
    return result


def check_retry_policy(value: Any, known: Sequence[str]) -> None:
    """Check a dictionary that says how often and when something is tried again.

    Args:
        value: The dictionary.
        known: Its keys, as far as there are any.

    Raises:
        ValueError: A key is not known, or its value cannot be used.
    """
    for key, each in value.items():
        if key not in known:
            raise ValueError(f"has the key {key}, not one of {near(key, known)}")
        try:
            READERS.get(key, _any)(each)
        except ValueError as error:
            problem = f"has {key} = {displayed(key, str(each))}, which {error}"
            raise ValueError(problem) from None


def check_publish_policy(value: Any) -> None:
    """Check what says how often and when Celery tries to send a message.

    Raises:
        ValueError: It is not a dictionary, or it has an item that cannot be used.
    """
    of("a dictionary", Mapping)(value)
    check_retry_policy(value, _publish_policy())


@cache
def _publish_policy() -> list[str]:
    # After what is called, how often and why.
    return [*signature(Connection.ensure).parameters][3:]


def _any(value: Any) -> Any:
    return value


def _number(*types: type, none: bool = False) -> _Reader:
    what = "number" if float in types else "whole number"

    def read(value: Any) -> Any:
        if value is None and none:
            return None
        is_number = isinstance(value, types) and not isinstance(value, bool)
        if not is_number or not value >= 0:
            raise ValueError(f"is not a {what} of at least 0.")
        return value

    return read


def read_boolean(value: Any) -> Any:
    """Return a string as a boolean, and any other value as it is.

    Raises:
        ValueError: The string is none.
    """
    if not isinstance(value, str):
        return value
    try:
        return to_bool(value)
    except ValueError:
        raise ValueError("is not true or false.") from None


def _boolean_or_text(value: Any) -> Any:
    try:
        return read_boolean(value)
    except ValueError:
        return value


def _text(value: Any) -> Any:
    if isinstance(value, (Mapping, list, tuple, bool)):
        raise ValueError("is not a text.")  # noqa: TRY004 a value
    # JSON makes a number of some.
    return str(value) if isinstance(value, (int, float)) else value


def _numbers(value: Any) -> Any:
    is_list = isinstance(value, (list, tuple, range)) and len(value)
    if not is_list or not all(isinstance(each, int) for each in value):
        raise ValueError("is not a list of numbers: write [0, 3, 6, 9], or such.")
    return value


def _strategy(value: Any) -> Any:
    from kombu.utils.scheduling import CYCLE_ALIASES

    try:
        check_symbol(value, CYCLE_ALIASES)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"= {value} ")) from None
    return value


def _socket_options(value: Any) -> Any:
    """Return options of a socket by their numbers, which an ini cannot have as keys."""
    result = {}
    for name, number in value.items() if isinstance(value, Mapping) else [("", 0)]:
        word = str(name)
        key = getattr(socket, word, 0) if word.startswith("TCP_") else 0
        key = int(word) if word.isdecimal() else key
        if not key or not isinstance(number, int):
            raise ValueError('is not of the form {"TCP_KEEPIDLE": 60}.')
        result[key] = number
    return result


def _policy(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError('is not of the form {"timeout": 5.0}.')  # noqa: TRY004 a value
    # After the function, its arguments and what Celery itself gives.
    check_retry_policy(value, [*signature(retry_over_time).parameters][5:])
    return value


_SECONDS = _number(int, float)
_SECONDS_OR_NONE = _number(int, float, none=True)
_COUNT = _number(int)
_COUNT_OR_NONE = _number(int, none=True)
READERS: dict[str, _Reader] = {
    "ack_emulation": read_boolean,
    "authentication": _any,
    "body_encoding": _any,
    "callback": _any,
    "channel_max": _COUNT_OR_NONE,
    "client_name": _text,
    "client_properties": _any,
    "confirm_publish": read_boolean,
    "connect_retries_timeout": _SECONDS_OR_NONE,
    "connect_timeout": _SECONDS_OR_NONE,
    "deadletter_queue": _text,
    "errback": _any,
    "fanout_patterns": read_boolean,
    "fanout_prefix": _boolean_or_text,
    "frame_max": _COUNT_OR_NONE,
    "global_keyprefix": _text,
    "health_check_interval": _SECONDS,
    "heartbeat": _SECONDS_OR_NONE,
    "interval_max": _SECONDS,
    "interval_start": _SECONDS,
    "interval_step": _SECONDS,
    "master_name": _text,
    "max_connections": _COUNT_OR_NONE,
    "max_retries": _SECONDS_OR_NONE,
    "min_other_sentinels": _COUNT,
    "polling_interval": _SECONDS_OR_NONE,
    "priority_steps": _numbers,
    "queue_order_strategy": _strategy,
    "read_timeout": _SECONDS_OR_NONE,
    "reauth_check_interval": _SECONDS,
    "result_chord_ordered": read_boolean,
    "retry_on_timeout": read_boolean,
    "retry_policy": _policy,
    "sentinel_fanout_compat": read_boolean,
    "sentinel_kwargs": _any,
    "sep": _text,
    "socket_connect_timeout": _SECONDS_OR_NONE,
    "socket_keepalive": read_boolean,
    "socket_keepalive_options": _socket_options,
    "socket_settings": _socket_options,
    "socket_timeout": _SECONDS_OR_NONE,
    "timeout": _SECONDS_OR_NONE,
    "unacked_index_key": _text,
    "unacked_key": _text,
    "unacked_mutex_expire": _SECONDS,
    "unacked_mutex_key": _text,
    "unacked_restore_interval": _SECONDS,
    "unacked_restore_limit": _COUNT_OR_NONE,
    "unacked_restore_throttle": _COUNT,
    "visibility_timeout": _SECONDS,
    "write_timeout": _SECONDS_OR_NONE,
}
#: Without what the settings of sentinels are checked for.
_NEAR = READERS.keys() - {"master_name"}
