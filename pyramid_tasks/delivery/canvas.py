"""Chains, groups and chords as nested dictionaries, which is how they are sent.

See `Canvas <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_.
"""

from __future__ import annotations

from collections import UserList
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.canvas import Signature, chunks
from celery.utils import uuid

from .._celery import set_app
from ..exceptions import DeferError

if TYPE_CHECKING:
    from celery import Celery

#: A signature and all that is in it, in plain dictionaries and lists.
Canvas = dict[str, Any]

#: The largest number of items that a generator in a canvas may give.
MAX_GENERATED = 100_000


class Node(NamedTuple):
    """A chain, group, chord or task of a canvas.

    Attributes:
        signature: The part of the canvas. A change of the part changes the canvas.
        is_first: Whether it is sent with the canvas, and not later by a worker.
        before: The arguments that Celery adds in front of its own ones. The result of
            the task before, or the list of results of the group before, is ``None``.
        is_errback: Whether it is the ``link_error`` of another node.
    """

    signature: Canvas
    is_first: bool
    before: tuple[Any, ...]
    is_errback: bool

    @property
    def is_task(self) -> bool:
        """Whether the node is a single task."""
        return not is_canvas(self.signature)

    @property
    def results_before(self) -> tuple[Any, ...]:
        """The arguments that Celery adds, none if the signature is immutable."""
        return () if self.signature.get("immutable") else self.before


def as_signature(canvas: Canvas, app: Celery) -> Signature:
    """Return a canvas as a signature that an application can send."""
    signature = Signature.from_dict(canvas)
    for node in nodes(signature):
        # Celery would set the application of the outermost signature alone. The others
        # would send through the current application.
        if isinstance(node.signature, Signature):
            set_app(node.signature, app)
    return signature


def is_canvas(signature: Canvas) -> bool:
    """Whether a signature is a chain, group or chord, and no single task."""
    return signature.get("subtask_type") in {"chain", "group", "chord"}


def nodes(
    canvas: Canvas,
    *,
    is_first: bool = True,
    with_linked: bool = True,
    before: tuple[Any, ...] = (),
    is_errback: bool = False,
) -> Iterator[Node]:
    """Iterate over a canvas and the parts of it.

    Args:
        canvas: The canvas, which comes first.
        is_first: Whether the canvas is sent now, and not later by a worker.
        with_linked: Whether to include the tasks that ``link`` and ``link_error`` name.
        before: As in :class:`Node`.
        is_errback: As in :class:`Node`.
    """
    kwargs, options = canvas["kwargs"], canvas["options"]
    node = Node(canvas, is_first, before, is_errback)
    yield node
    first = partial(nodes, with_linked=with_linked, is_first=is_first)
    later = partial(nodes, with_linked=with_linked, is_first=False, before=(None,))
    match canvas.get("subtask_type"):
        case "chain":
            for each in kwargs["tasks"][:1]:
                yield from first(each, before=node.results_before)
            for each in kwargs["tasks"][1:]:
                yield from later(each)
        case "group":
            for each in kwargs["tasks"]:
                yield from first(each, before=before)
        case "chord":
            # A chain or a group that Celery copies has no arguments of its own.
            own = (*node.results_before, *canvas["args"])
            for each in _as_list(kwargs["header"]):
                yield from first(each, before=own)
            yield from later(kwargs["body"])
    for key in ("link", "link_error") if with_linked else ():
        for each in _as_list(options.get(key)):
            yield from later(each, is_errback=key == "link_error")


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
        # A dictionary among the arguments can have some of these keys too.
        is_signature = value.keys() >= {"task", "args", "kwargs", "options"}
        if is_signature and value["task"] == "celery.chunks":
            value = _as_group(value)
        copied = {key: copy(each) for key, each in value.items()}
        match is_signature and copied.get("subtask_type"):
            case "chain":
                copied["kwargs"]["tasks"] = _without_empty(copied["kwargs"]["tasks"])
            case "group":
                copied["kwargs"]["tasks"] = _flat(copied["kwargs"]["tasks"])
            case "chord":
                copied["kwargs"]["header"] = _flat(copied["kwargs"]["header"])
        return copied
    if isinstance(value, UserList):  # Celery's regen(), around a generator
        return _copy_generated(value)
    if isinstance(value, list):
        return [copy(each) for each in value]
    if type(value) is tuple:
        return tuple(map(copy, value))
    return value


def _copy_generated(generated: UserList[Any]) -> list[Any]:
    copied = [copy(each) for each in islice(generated, MAX_GENERATED + 1)]
    if len(copied) > MAX_GENERATED:
        raise DeferError(
            f"A generator in a canvas may give {MAX_GENERATED} items: all of them are "
            "checked before the first is sent. Give a list of more"
        )
    return copied


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


def _without_empty(steps: list[Canvas]) -> list[Canvas]:
    """Leave out the empty groups of a chain, as Celery 5.7 does when it sends them."""
    some = [
        each
        for each in steps
        if each.get("subtask_type") != "group" or each["kwargs"]["tasks"]
    ]
    return some or steps[:1]


def _as_list(signatures: Canvas | Iterable[Canvas] | None) -> Iterable[Canvas]:
    return [signatures] if isinstance(signatures, dict) else signatures or ()
