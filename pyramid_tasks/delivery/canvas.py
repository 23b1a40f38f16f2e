"""Chains, groups and chords as what they are when they travel: nested dictionaries.

See `Canvas <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_.
"""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.canvas import Signature, chunks
from celery.utils import uuid

from .._celery import set_app

if TYPE_CHECKING:
    from celery import Celery

#: A signature with everything in it, as JSON holds it.
Canvas = dict[str, Any]

#: Where those have their tasks that Celery sends at the same time.
_MEMBERS = {"group": "tasks", "chord": "header"}


class Node(NamedTuple):
    """A chain, group, chord or task of a canvas.

    Attributes:
        signature: Its own dictionary: what is changed in it is changed in the canvas.
        is_first: Whether it is sent at once, and not by a worker after another task.
    """

    signature: Canvas
    is_first: bool

    @property
    def is_task(self) -> bool:
        """Whether it is a task, and nothing that has tasks in it."""
        return self.signature.get("subtask_type") not in {"chain", "group", "chord"}

    @property
    def results_before(self) -> tuple[None, ...]:
        """What stands for the results that come before the arguments.

        A task gets that of the task before, those of the group before as a list, and as
        a ``link_error`` the id of the task that failed.
        """
        follows = not (self.is_first or self.signature.get("immutable"))
        return (None,) if follows else ()


def as_signature(canvas: Canvas, app: Celery) -> Signature:
    """Return what can be sent."""
    signature = Signature.from_dict(canvas)
    for node in nodes(signature):
        # Celery would set that of the outermost, and have the others send through the
        # current application, whichever that is.
        if isinstance(node.signature, Signature):
            set_app(node.signature, app)
    return signature


def nodes(
    canvas: Canvas, *, is_first: bool = True, with_linked: bool = True
) -> Iterator[Node]:
    """Go through a canvas: all that is in it, and what is linked to that."""
    kwargs, options = canvas["kwargs"], canvas["options"]
    yield Node(canvas, is_first)
    within = partial(nodes, with_linked=with_linked)
    match canvas.get("subtask_type"):
        case "chain":
            for number, each in enumerate(kwargs["tasks"]):
                yield from within(each, is_first=is_first and number == 0)
        case "group":
            for each in kwargs["tasks"]:
                yield from within(each, is_first=is_first)
        case "chord":
            for each in _as_list(kwargs["header"]):
                yield from within(each, is_first=is_first)
            yield from within(kwargs["body"], is_first=False)
    for key in ("link", "link_error") if with_linked else ():
        for each in _as_list(options.get(key)):
            yield from nodes(each, is_first=False)


def leaves(canvas: Canvas, *, with_linked: bool = True) -> Iterator[Node]:
    """Go through the tasks of a canvas, and those that are linked to them."""
    return (node for node in nodes(canvas, with_linked=with_linked) if node.is_task)


def fix_ids(canvas: Canvas) -> list[Canvas]:
    """Give the tasks of a canvas the ids that Celery would give them to be sent with.

    Not those that are linked to them: they may be sent more than once.

    Returns:
        The tasks, in order.
    """
    tasks = [leaf.signature for leaf in leaves(canvas, with_linked=False)]
    last = canvas
    while tasks and last.get("subtask_type") in {"chain", "chord"}:
        kwargs = last["kwargs"]
        last = kwargs["body"] if "body" in kwargs else kwargs["tasks"][-1]
    # The id of a chain or a chord is that of its last task, or group.
    if tasks and last is tasks[-1] and (own := canvas["options"].pop("task_id", None)):
        last["options"]["task_id"] = own
    for task in tasks:
        task["options"].setdefault("task_id", uuid())
    return tasks


def copy(value: Any) -> Any:
    """Return a copy of what an option or an argument can be, in plain containers."""
    if isinstance(value, dict):
        if value.get("task") == "celery.chunks":
            value = _as_group(value)
        copied = {key: copy(each) for key, each in value.items()}
        if members := _MEMBERS.get(copied.get("subtask_type") or ""):
            copied["kwargs"][members] = _flat(copied["kwargs"][members])
        return copied
    if isinstance(value, (list, UserList)):  # the latter is Celery's regen()
        return [copy(each) for each in value]
    if type(value) is tuple:
        return tuple(map(copy, value))
    return value


def _as_group(signature: Canvas) -> Canvas:
    """Divide chunks now, where Celery does when it sends them, or else in a worker."""
    kwargs, options = signature["kwargs"], signature["options"]
    group: Canvas = chunks(kwargs["task"], kwargs["it"], kwargs["n"]).group()
    group["options"].update(options)
    return group


def _flat(signatures: Canvas | list[Canvas]) -> Canvas | list[Canvas]:
    """Resolve groups in a group, as Celery does, but in their order.

    Celery (5.3 to 5.7) turns the order round when it fixes the ids.
    """
    if isinstance(signatures, dict):  # the header of a chord can be a group
        return signatures
    flat: list[Canvas] = []
    for each in signatures:
        is_group = each.get("subtask_type") == "group"
        flat += each["kwargs"]["tasks"] if is_group else [each]
    return flat


def _as_list(signatures: Canvas | Iterable[Canvas] | None) -> Iterable[Canvas]:
    return [signatures] if isinstance(signatures, dict) else signatures or ()
