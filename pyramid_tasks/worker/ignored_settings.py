"""The settings that a worker accepts, but cannot honour."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kombu.serialization import registry as serializers

if TYPE_CHECKING:
    from celery import Celery


def is_refused(serializer: Any, accepted: Collection[str]) -> bool:
    """Whether a setting such as ``accept_content`` excludes a serializer."""
    types = {serializers.name_to_type.get(each, each) for each in accepted}
    # Content of no serializer, such as the content of raw, is always accepted.
    return serializers.name_to_type.get(serializer) not in {None, *types}


def ignored_settings(app: Celery) -> Iterator[tuple[str, str]]:
    """Yield each such setting of a worker, and the end of a sentence about it."""
    conf = app.conf
    # Another worker may take these calls, from a queue of its own. The serializer of
    # all calls, task_serializer, has been checked before.
    given = [(f"the task {name}", task.serializer) for name, task in app.tasks.items()]
    given += _of_map("a route for", conf.task_routes)
    given += _of_map("the schedule", conf.beat_schedule)
    for owner, serializer in given:
        is_sent = serializer != conf.task_serializer and not conf.task_always_eager
        if is_sent and is_refused(serializer, conf.accept_content):
            accepted = " ".join([*conf.accept_content, serializer])
            refused = f"refuses {serializer}, in which {owner} sends"
            yield "accept_content", f"{refused}: write {accepted}."
    soft, hard = conf.task_soft_time_limit, conf.task_time_limit
    if soft and hard and soft > hard:
        never = f"= {soft:g} is never reached, as task_time_limit = {hard:g}"
        yield "task_soft_time_limit", f"{never}: write a smaller number."


def pairs(maps: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the items of ``task_routes``, or of annotations, in every form."""
    for each in maps if isinstance(maps, (list, tuple)) else (maps,):
        if isinstance(each, Mapping):
            yield from each.items()
        elif isinstance(each, (list, tuple)):
            yield from each


def _of_map(what: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names in a map of options, each with its serializer, if it has one."""
    for name, options in pairs(value):
        if isinstance(options, Mapping):
            of_schedule = options.get("options") or {}
            serializer = {**options, **of_schedule}.get("serializer")
            if serializer:
                yield f"{what} {name}", serializer
