"""The values that Celery can use for its settings, beyond their types.

Celery looks at most values when it first needs them: a worker then dies with a
traceback, or a request cannot defer a task. So each value is tried here at the commit,
in the worker, in ``ptasks --check`` and in the web process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any

from celery.utils.time import rate, timezone
from kombu import compression
from kombu.connection import Connection
from kombu.serialization import registry as serializers

from ..exceptions import SettingError
from .addresses import check_address
from .importable import (
    check_modules,
    check_pool,
    check_result_backend,
    check_scheduler,
    check_symbol,
    check_transport,
)
from .maps import check_annotations, check_queues, check_routes
from .schedules import ScheduleError, read_schedule

#: Raises ``ValueError`` with the fault and the remedy, or returns the value in the form
#: that Celery needs, or returns ``None`` for a value that stays as it is.
Check = Callable[[Any], Any]

#: The variables of the environment that Celery reads before its settings.
_ENVIRON = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)

#: What a check goes on with, so that it tells of one mistake once.
_INSTEAD = {"broker_url": "memory://", "result_backend": "cache+memory://"}


def check_values(
    settings: dict[str, Any],
    report: Callable[[str, SettingError], None],
    *,
    is_worker: bool,
) -> None:
    """Report the values that Celery cannot use, and take them out of the settings.

    Args:
        settings: The settings of Celery, by the names of the settings.
        is_worker: Whether the settings of workers and beat count, too.
        report: Called with the name of a setting, and the mistake in its value.
    """
    for name in [name for name in settings if name in CHECKS]:
        value = settings[name]
        if value is not None and (is_worker or not _is_of_worker(name)):
            try:
                if value in ("", []):
                    if name in _NEVER_EMPTY:
                        raise ValueError("is empty: write a value, or leave it out.")
                elif (changed := CHECKS[name](value)) is not None:
                    settings[name] = changed
            except ScheduleError as error:
                settings[name] = error.readable
                for problem in error.problems:
                    report(name, SettingError(name, problem))
            except ValueError as error:
                del settings[name]
                if name in _INSTEAD:
                    settings[name] = _INSTEAD[name]
                report(name, SettingError(name, str(error)))


def _is_of_worker(name: str) -> bool:
    """Whether a web process does nothing with a setting."""
    if name == "beat_schedule":
        return False
    return name.startswith(("beat_", "worker_")) or name in {"imports", "include"}


def check_environment() -> None:
    """Check the addresses that Celery takes from the environment.

    Raises:
        SettingError: Such an address is not a URL.
    """
    for variable in _ENVIRON:
        if value := os.environ.get(variable):
            try:
                check_address(value)
            except ValueError as error:
                raise SettingError(variable, str(error), "the environment") from None


def _near(name: object, known: Sequence[object]) -> str:
    """Return the end of a sentence about a name that is none of the known ones."""
    names = [*map(str, known)]
    nearest = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"{', '.join(names)}.{hint}"


def _one_of(*known: object) -> Check:
    def check(value: Any) -> None:
        if value not in known:
            raise ValueError(f"= {value} is not one of {_near(value, known)}")

    return check


def _at_least(least: float) -> Check:
    def check(value: Any) -> None:
        if isinstance(value, (int, float)) and not value >= least:
            raise ValueError(f"= {value} is not a number of at least {least}.")

    return check


def _serializer(value: Any) -> None:
    if value not in serializers.name_to_type:
        known = [name for name in serializers.name_to_type if "/" not in name]
        raise ValueError(f"= {value} is not one of {_near(value, known)}")


def _accept(value: Any) -> None:
    known = [name for name in serializers.name_to_type if "/" not in name]
    for each in [value] if isinstance(value, str) else value:
        # A content type needs no serializer here.
        if not isinstance(each, str) or ("/" not in each and each not in known):
            raise ValueError(
                f"has {each!r}, which is not one of {_near(each, known)} Write several "
                "with a space between them."
            )


def _compression(value: Any) -> None:
    def is_known(name: Any) -> bool:
        try:
            return bool(compression.get_encoder(name))
        except (KeyError, TypeError):
            return False

    if not is_known(value):
        known = [*filter(is_known, ("gzip", "bzip2", "lzma", "brotli", "zstd"))]
        raise ValueError(f"= {value} is not one of {_near(value, known)}")


def _rate(value: Any) -> None:
    try:
        rate(value)
    except (KeyError, ValueError):
        raise ValueError(
            f"= {value} is not a rate: write a number of tasks a second, or such as "
            "100/m or 10/h."
        ) from None


def _zone(value: Any) -> None:
    try:
        timezone.get_timezone(value)
    except Exception:  # noqa: BLE001 each library of timezones has its own
        problem = f"= {value} is no timezone: write Europe/Berlin, or such."
        raise ValueError(problem) from None


def _exchange_type(value: Any) -> None:
    if not str(value).startswith("x-"):  # of a plugin of the broker
        _one_of("direct", "topic", "fanout", "headers")(value)


def _retry_policy(value: Any) -> None:
    known = [*signature(Connection.ensure).parameters][3:]
    for key in value:
        if key not in known:
            raise ValueError(f"has the key {key}, not one of {_near(key, known)}")


def _log_format(value: Any) -> None:
    try:
        logging.Formatter(value)
    except ValueError:
        raise ValueError(
            f"= {value} has no field: write %%(message)s and others with two percent "
            "signs each in an ini."
        ) from None


def _log_level(value: Any) -> None:
    if not isinstance(value, int):
        levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        _one_of(*levels)(str(value).upper())


_NEVER_EMPTY = {
    *("accept_content", "result_accept_content", "result_serializer", "task_routes"),
    *("task_annotations", "task_default_queue", "worker_consumer", "worker_pool"),
    "worker_pool_start_method",
}
_QUEUE_TYPE = _one_of("classic", "quorum", "stream")
CHECKS: dict[str, Check] = {
    "accept_content": _accept,
    "beat_schedule": read_schedule,
    "beat_scheduler": check_scheduler,
    "broker_failover_strategy": _one_of("round-robin", "shuffle"),
    "broker_login_method": _one_of("PLAIN", "AMQPLAIN", "EXTERNAL", "GSSAPI"),
    "broker_native_delayed_delivery_queue_type": _one_of("classic", "quorum"),
    "broker_pool_acquire_timeout": _at_least(0),
    "broker_pool_limit": _at_least(0),
    "broker_read_url": check_address,
    "broker_transport": check_transport,
    "broker_url": check_address,
    "broker_write_url": check_address,
    "event_serializer": _serializer,
    "imports": check_modules,
    "include": check_modules,
    "result_accept_content": _accept,
    "result_backend": check_result_backend,
    "result_compression": _compression,
    "result_exchange_type": _exchange_type,
    "result_serializer": _serializer,
    "task_annotations": check_annotations,
    "task_compression": _compression,
    "task_create_missing_queue_exchange_type": _exchange_type,
    "task_create_missing_queue_type": _QUEUE_TYPE,
    "task_default_delivery_mode": _one_of(1, 2, "1", "2", "transient", "persistent"),
    "task_default_exchange_type": _exchange_type,
    "task_default_queue": str,
    "task_default_queue_type": _QUEUE_TYPE,
    "task_default_rate_limit": _rate,
    "task_protocol": _one_of(1, 2),
    "task_publish_retry_policy": _retry_policy,
    "task_queues": check_queues,
    "task_routes": check_routes,
    "task_serializer": _serializer,
    "timezone": _zone,
    "worker_agent": check_symbol,
    "worker_autoscaler": check_symbol,
    "worker_concurrency": _at_least(0),
    "worker_consumer": check_symbol,
    "worker_log_format": _log_format,
    "worker_max_tasks_per_child": _at_least(1),
    "worker_pool": check_pool,
    "worker_pool_start_method": _one_of("fork", "spawn"),
    "worker_prefetch_multiplier": _at_least(0),
    "worker_redirect_stdouts_level": _log_level,
    "worker_task_log_format": _log_format,
    "worker_timer": check_symbol,
}
