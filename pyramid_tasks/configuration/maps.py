"""The settings of Celery that map the names of tasks and queues to options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kombu.entity import Queue

from .call_options import check_routed, check_task_options, misspelt_options
from .importable import check_symbol

#: The keys that Celery and kombu read of a queue.
_OF_QUEUE = {
    *(name for name, _ in Queue.attrs),
    *("binding_key", "delivery_mode", "exchange_type", "exchange_durable"),
    *("exchange_auto_delete", "exchange_arguments", "queue_durable"),
    *("queue_auto_delete", "queue_arguments", "binding_arguments"),
}
_ROUTES = 'write {"name of a task": {"queue": "name of a queue"}}.'


def check_queues(value: Any) -> None:
    """Check the value of ``task_queues``.

    Raises:
        ValueError: Celery cannot make queues of it.
    """
    from celery.app.amqp import Queues  # slow, for a web process

    for name, options in value.items() if isinstance(value, Mapping) else ():
        if isinstance(options, Mapping):
            for key, near in misspelt_options(options, _OF_QUEUE):
                raise ValueError(f"has {key} for {name!r}. Did you mean {near}?")
    try:
        Queues(value)
    except Exception:  # noqa: BLE001 whatever Celery makes of it
        raise ValueError(
            'cannot be read as queues: write {"name of a queue": {"exchange": "name", '
            '"routing_key": "key"}}.'
        ) from None


def check_routes(value: Any) -> None:
    """Check the value of ``task_routes``, in any of its forms.

    Raises:
        ValueError: Celery cannot route by it.
    """
    for routes in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(routes, str):
            check_symbol(routes)
        elif isinstance(routes, (Mapping, list, tuple)):
            pairs = routes.items() if isinstance(routes, Mapping) else routes
            for pair in pairs:
                if not isinstance(pair, (list, tuple)) or len(pair) != 2:  # noqa: PLR2004
                    raise ValueError(f"cannot be read as routes: {_ROUTES}")
                name, route = pair
                _check_route(name, route)
        elif not callable(routes) and not hasattr(routes, "route_for_task"):
            raise ValueError(f"cannot be read as routes: {_ROUTES}")


def _check_route(name: Any, route: Any) -> None:
    if not isinstance(name, (str, re.Pattern)):
        raise ValueError(  # noqa: TRY004 a value
            f"has a route for {name!r}, which is no name: {_ROUTES}"
        )
    if isinstance(route, Mapping):
        try:
            check_routed({**route})
        except ValueError as error:
            raise ValueError(f"has a route for {name!r}: {error}") from None
    elif not isinstance(route, str):
        raise ValueError(  # noqa: TRY004 a value
            f"has a route for {name!r} that cannot be read: {_ROUTES}"
        )


def check_annotations(value: Any) -> None:
    """Check the value of ``task_annotations``, in any of its forms.

    Raises:
        ValueError: Celery cannot annotate tasks by it.
    """
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(each, str):
            check_symbol(each)
        elif isinstance(each, Mapping):
            for name, options in each.items():
                if not isinstance(options, Mapping):
                    raise ValueError(  # noqa: TRY004 a value
                        f"has options for {name!r} that cannot be read: write "
                        '{"name of a task": {"rate_limit": "10/m"}}.'
                    )
                _check_annotation(name, options)
        elif not hasattr(each, "annotate"):
            raise ValueError('is no map: write {"*": {"rate_limit": "10/m"}}.')


def _check_annotation(name: Any, options: Mapping[str, Any]) -> None:
    # An option whose name begins with "@" goes around a method of the task.
    own = {key: each for key, each in options.items() if not key.startswith("@")}
    try:
        check_task_options(own)
    except ValueError as error:
        raise ValueError(f"has for {name!r}: {error}") from None


def check_tables(value: Mapping[str, Any]) -> None:
    """Check the value of ``database_table_names`` or ``database_table_schemas``.

    Raises:
        ValueError: Celery has no such table.
    """
    for key, name in value.items():
        if key not in {"task", "group"} or not isinstance(name, str):
            raise ValueError(f"has {key} = {name}: write a name for task or for group.")
