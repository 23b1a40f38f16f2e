"""Chains, groups and chords as what they are when they travel: nested dictionaries.

See `Canvas <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_.
"""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.canvas import chunks, maybe_signature

from .registry import check_arguments

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.canvas import Signature

#: A signature with everything in it, as JSON holds it.
Canvas = dict[str, Any]


class Leaf(NamedTuple):
    """One task of a canvas.

    Attributes:
        signature: Its own dictionary: what is changed in it is changed in the canvas.
        is_first: Whether it is sent at once, and not by a worker after another task.
        is_called_back: Whether another task says, as ``link`` or ``link_error``, with
            which arguments it is called.
    """

    signature: Canvas
    is_first: bool
    is_called_back: bool


def as_canvas(signature: Signature) -> Canvas:
    """Return a copy that shares nothing with the signature."""
    if isinstance(signature, chunks):
        # It divides itself when it is sent; afterwards it is a plain task.
        signature = signature.group()
    canvas: Canvas = _copy(signature)
    return canvas


def as_signature(canvas: Canvas, app: Celery) -> Signature:
    """Return what can be sent."""
    return maybe_signature(canvas, app=app)


def leaves(
    canvas: Canvas, *, is_first: bool = True, is_called_back: bool = False
) -> Iterator[Leaf]:
    """Go through the tasks of a canvas, and of what is linked to them."""
    kind, kwargs, options = (
        canvas.get("subtask_type"),
        canvas["kwargs"],
        canvas["options"],
    )
    if kind == "chain":
        for number, each in enumerate(kwargs["tasks"]):
            yield from leaves(each, is_first=is_first and number == 0)
    elif kind == "group":
        for each in kwargs["tasks"]:
            yield from leaves(each, is_first=is_first)
    elif kind == "chord":
        header = kwargs["header"]
        for each in [header] if isinstance(header, dict) else header:
            yield from leaves(each, is_first=is_first)
        yield from leaves(kwargs["body"], is_first=False)
    else:
        yield Leaf(canvas, is_first, is_called_back)
    for key in ("link", "link_error"):
        linked = options.get(key) or ()
        for each in [linked] if isinstance(linked, dict) else linked:
            yield from leaves(each, is_first=False, is_called_back=True)


def check_leaf(leaf: Leaf, task: Task) -> None:
    """Check the call of a task as far as it is known.

    Raises:
        TypeError: The task cannot be called so.
    """
    if leaf.is_called_back:
        return
    signature = leaf.signature
    args = tuple(signature["args"])
    if not (leaf.is_first or signature.get("immutable")):
        args = (None, *args)  # the result of the task before
    check_arguments(task, args, signature["kwargs"])


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    if isinstance(value, (list, UserList)):  # the latter is Celery's regen()
        return [_copy(each) for each in value]
    if type(value) is tuple:
        return tuple(map(_copy, value))
    return value
