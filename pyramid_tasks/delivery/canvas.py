"""Chains, groups and chords as nested dictionaries, which is how they are sent.

See `Canvas <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_.
"""

from __future__ import annotations

from collections import UserList
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.canvas import Signature, chunks
from celery.utils import uuid

from .._celery import set_app

if TYPE_CHECKING:
    from celery import Celery

#: A signature and all that is in it, in plain dictionaries and lists.
Canvas = dict[str, Any]

#: The argument that has the tasks which Celery sends at the same time.
_MEMBERS = {"group": "tasks", "chord": "header"}


class Node(NamedTuple):
    """A chain, group, chord or task of a canvas.

    Attributes:
        signature: The part of the canvas. A change of the part changes the canvas.
        is_first: Whether it is sent with the canvas, and not later by a worker.
    """

    signature: Canvas
    is_first: bool

    @property
    def is_task(self) -> bool:
        """Whether the node is a single task."""
        return self.signature.get("subtask_type") not in {"chain", "group", "chord"}

    @property
    def results_before(self) -> tuple[None, ...]:
        """A ``None`` in the place of the argument that Celery adds in a worker.

        Celery adds the result of the task before, or a list with the results of the
        group before. To a ``link_error`` it adds the id of the task that failed.
        """
        follows = not (self.is_first or self.signature.get("immutable"))
        return (None,) if follows else ()


def as_signature(canvas: Canvas, app: Celery) -> Signature:
    """Return a canvas as a signature that an application can send."""
    signature = Signature.from_dict(canvas)
    for node in nodes(signature):
        # Celery would set the application of the outermost signature alone. The others
        # would send through the current application.
        if isinstance(node.signature, Signature):
            set_app(node.signature, app)
    return signature


def nodes(
    canvas: Canvas, *, is_first: bool = True, with_linked: bool = True
) -> Iterator[Node]:
    """Iterate over a canvas and the parts of it.

    Args:
        canvas: The canvas, which comes first.
        is_first: Whether the canvas is sent now, and not later by a worker.
        with_linked: Whether to include the tasks that ``link`` and ``link_error`` name.
    """
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
    """Iterate over the single tasks of a canvas; see :func:`nodes`."""
    return (node for node in nodes(canvas, with_linked=with_linked) if node.is_task)


def fix_ids(canvas: Canvas, new_id: Callable[[], str] = uuid) -> list[Canvas]:
    """Give the tasks of a canvas their ids, as Celery would when it sends them.

    Linked tasks get none, as Celery may send them more than once.

    Args:
        canvas: The canvas, which this changes in place.
        new_id: A function that returns an id.

    Returns:
        The tasks, in order.
    """
    tasks = [leaf.signature for leaf in leaves(canvas, with_linked=False)]
    last = canvas
    while tasks and last.get("subtask_type") in {"chain", "chord"}:
        kwargs = last["kwargs"]
        last = kwargs["body"] if "body" in kwargs else kwargs["tasks"][-1]
    # A chain or a chord has the id of its last task or group.
    if tasks and last is tasks[-1] and (own := canvas["options"].pop("task_id", None)):
        last["options"]["task_id"] = own
    for task in tasks:
        task["options"].setdefault("task_id", new_id())
    return tasks


def copy(value: Any) -> Any:
    """Return a copy of a signature, an option or an argument, in plain containers."""
    if isinstance(value, dict):
        if value.get("task") == "celery.chunks":
            value = _as_group(value)
        copied = {key: copy(each) for key, each in value.items()}
        if members := _MEMBERS.get(copied.get("subtask_type") or ""):
            copied["kwargs"][members] = _flat(copied["kwargs"][members])
        return copied
    if isinstance(value, (list, UserList)):  # Celery's regen() is a UserList
        return [copy(each) for each in value]
    if type(value) is tuple:
        return tuple(map(copy, value))
    return value


def _as_group(signature: Canvas) -> Canvas:
    """Divide chunks. Celery would do so when it sends them, or later in a worker."""
    kwargs, options = signature["kwargs"], signature["options"]
    group: Canvas = chunks(kwargs["task"], kwargs["it"], kwargs["n"]).group()
    group["options"].update(options)
    return group


def _flat(signatures: Canvas | list[Canvas]) -> Canvas | list[Canvas]:
    """Put the tasks of inner groups into the outer group, as Celery does, in order.

    Celery (5.3 to 5.7) reverses the order of inner groups when it fixes the ids.
    """
    if isinstance(signatures, dict):  # a group, as the header of a chord
        return signatures
    flat: list[Canvas] = []
    for each in signatures:
        is_group = each.get("subtask_type") == "group"
        flat += each["kwargs"]["tasks"] if is_group else [each]
    return flat


def _as_list(signatures: Canvas | Iterable[Canvas] | None) -> Iterable[Canvas]:
    return [signatures] if isinstance(signatures, dict) else signatures or ()
