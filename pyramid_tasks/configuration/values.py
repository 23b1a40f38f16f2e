"""The values that Celery can use for its settings, beyond their types.

Celery looks at most values when it first needs them: a worker then dies with a
traceback, or a request cannot defer a task. So each value is tried here at the commit,
in the worker, in ``ptasks --check`` and in the web process.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from celery.utils.time import timezone

from .._celery import SETTING_TYPES
from ..coercion import check_type
from ..exceptions import SettingError, near_names
from .addresses import INSTEAD, check_broker, find_address
from .beat_schedule import ScheduleError, read_schedule
from .importable import (
    check_modules,
    check_pool,
    check_result_backend,
    check_scheduler,
    check_symbol,
    check_transport,
)
from .kinds import (
    Check,
    at_least,
    check_delivery_mode,
    check_exchange_type,
    check_rate,
    one_of,
)
from .maps import check_annotations, check_queues, check_routes, check_tables
from .serializers import check_accepted, check_compression, check_serializer
from .transport_options import check_publish_policy

if TYPE_CHECKING:
    from ..settings import Report


def check_setting_values(
    settings: dict[str, Any], report: Report, *, is_worker: bool
) -> None:
    """Report the values that Celery cannot use, and take them out of the settings.

    Args:
        settings: The settings of Celery, by the names of the settings.
        is_worker: Whether the settings of workers and beat count, too.
        report: Called with each mistake, whose key is the name of a setting.
    """
    for name in [name for name in settings if name in SETTING_TYPES]:
        value = settings[name]
        if value is not None and (is_worker or not _is_of_worker(name)):
            try:
                if (changed := _check(name, value)) is not None:
                    settings[name] = changed
            except ScheduleError as error:
                settings[name] = error.readable
                for problem in error.problems:
                    report(SettingError(name, problem))
            except ValueError as error:
                del settings[name]
                if name in INSTEAD:
                    settings[name] = INSTEAD[name]
                report(SettingError(name, str(error)))


def _check(name: str, value: Any) -> Any:
    if name not in _OF_OTHER_TYPES:
        check_type(name, value, SETTING_TYPES[name])
    if value in ("", []):
        if name in _NEVER_EMPTY:
            raise ValueError("is empty: write a value, or leave it out.")
        return None
    return CHECKS[name](value) if name in CHECKS else None


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
    for name in INSTEAD:
        value, variable, source = find_address({}, name)
        if value:
            try:
                CHECKS[name](value)
            except ValueError as error:
                raise SettingError(variable, str(error), source) from None


def _zone(value: Any) -> None:
    try:
        timezone.get_timezone(value)
    except Exception:  # noqa: BLE001 each library of timezones has its own
        problem = f"= {value} is no timezone: write Europe/Berlin, or such."
        raise ValueError(problem) from None


def _log_format(value: Any) -> None:
    try:
        logging.Formatter(value)
    except ValueError:
        raise ValueError(
            f"= {value} has no field: write %%(message)s and others with two percent "
            "signs each in an ini."
        ) from None
    check_fields(value)


def check_fields(text: str) -> None:
    """Check the fields of a format for lines of a log.

    Raises:
        ValueError: No record has a field, but one with nearly the same name. A filter
            of the application may add others.
    """
    known = {*vars(logging.makeLogRecord({})), "asctime", "message"}
    known |= {"task_id", "task_name"}
    for field in {*re.findall(r"%\((\w+)\)", text)} - known:
        for near in near_names(field, known, cutoff=0.87):
            raise ValueError(f"has the unknown field {field}. Did you mean {near}?")


def _log_level(value: Any) -> None:
    if not isinstance(value, int):
        levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        one_of(*levels)(str(value).upper())


_NEVER_EMPTY = {
    *("accept_content", "result_accept_content", "result_serializer", "task_routes"),
    *("task_annotations", "task_default_queue", "worker_consumer", "worker_pool"),
    "worker_pool_start_method",
}
#: Celery declares a type for these that is not the only one they can have.
_OF_OTHER_TYPES = {
    *("task_default_rate_limit", "task_queues", "worker_redirect_stdouts_level"),
}
_QUEUE_TYPE = one_of("classic", "quorum", "stream")
#: The settings that are numbers of at least 0.
_NUMBERS = {
    *("broker_connection_timeout", "broker_pool_acquire_timeout"),
    *("broker_pool_limit", "control_queue_expires", "control_queue_ttl"),
    *("event_queue_expires", "event_queue_ttl"),
    *("redis_max_connections", "redis_socket_connect_timeout"),
    *("redis_socket_timeout", "result_chord_expires", "result_expires"),
    *("result_failure_expires", "task_queue_max_priority", "task_soft_time_limit"),
    *("task_time_limit", "worker_concurrency", "worker_prefetch_multiplier"),
}
CHECKS: dict[str, Check] = {
    **dict.fromkeys(_NUMBERS, at_least(0)),
    "accept_content": check_accepted,
    "beat_schedule": read_schedule,
    "beat_scheduler": check_scheduler,
    "broker_failover_strategy": one_of("round-robin", "shuffle"),
    "broker_login_method": one_of("PLAIN", "AMQPLAIN", "EXTERNAL", "GSSAPI"),
    "broker_native_delayed_delivery_queue_type": one_of("classic", "quorum"),
    "broker_read_url": check_broker,
    "broker_transport": check_transport,
    "broker_url": check_broker,
    "broker_write_url": check_broker,
    "database_table_names": check_tables,
    "database_table_schemas": check_tables,
    "event_serializer": check_serializer,
    "imports": check_modules,
    "include": check_modules,
    "result_accept_content": check_accepted,
    "result_backend": check_result_backend,
    "result_compression": check_compression,
    "result_exchange_type": check_exchange_type,
    "result_serializer": check_serializer,
    "task_annotations": check_annotations,
    "task_compression": check_compression,
    "task_create_missing_queue_exchange_type": check_exchange_type,
    "task_create_missing_queue_type": _QUEUE_TYPE,
    "task_default_delivery_mode": check_delivery_mode,
    "task_default_exchange_type": check_exchange_type,
    "task_default_queue_type": _QUEUE_TYPE,
    "task_default_rate_limit": check_rate,
    "task_protocol": one_of(1, 2),
    "task_publish_retry_policy": check_publish_policy,
    "task_queues": check_queues,
    "task_routes": check_routes,
    "task_serializer": check_serializer,
    "timezone": _zone,
    "worker_agent": check_symbol,
    "worker_autoscaler": check_symbol,
    "worker_consumer": check_symbol,
    "worker_log_format": _log_format,
    "worker_max_tasks_per_child": at_least(1),
    "worker_pool": check_pool,
    "worker_pool_start_method": one_of("fork", "spawn"),
    "worker_redirect_stdouts_level": _log_level,
    "worker_task_log_format": _log_format,
    "worker_timer": check_symbol,
}
