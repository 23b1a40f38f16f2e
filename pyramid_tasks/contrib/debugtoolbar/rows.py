"""A row of the panel. It holds text alone, as the toolbar keeps it for a long time."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.states import READY_STATES
from celery.utils.saferepr import saferepr
from celery.utils.text import truncate

from ...delivery.immediate import ROUTING, route
from ...worker.contexts import HEADER

if TYPE_CHECKING:
    from celery import Celery

    from ...delivery.canvas import Node

NOT_SENT = "not sent"
SENDING_FAILED = "sending failed"
NOT_KEPT = "result not kept"

_PACKAGE = __name__.split(".", maxsplit=1)[0]

_SHOWN = ("countdown", "eta", "expires", "priority")

_MAX_ARGUMENTS = 20
_MAX_VALUE = 200
MAX_TEXT = 500


@dataclass(frozen=True)
class Place:
    """A line of code, and the function around it."""

    line: str
    path: str
    function: str
    source: str


@dataclass
class Row:
    """A task that was deferred.

    Attributes:
        id: Empty for a callback, which gets its id when a worker sends it.
        part_of: ``chain``, ``group`` or ``chord`` for a task of one, ``callback`` for a
            linked task, or empty.
        queue: Empty if it is not known.
        state: A state of Celery, a constant of this module, or empty if it is not known
            yet.
        result: The value that Celery keeps with the state, or the last line of the
            traceback.
        traceback: The end of the traceback of a task that failed.
    """

    id: str
    name: str
    args: str
    part_of: str
    delivery: str
    queue: str
    options: str
    context: str
    place: Place
    state: str
    result: str = ""
    traceback: str = ""

    @property
    def is_unsent(self) -> bool:
        """Whether the task got neither to the broker nor to the outbox."""
        return self.state in {NOT_SENT, SENDING_FAILED}

    @property
    def is_final(self) -> bool:
        """Whether the state will not change any more."""
        return self.is_unsent or self.state == NOT_KEPT or self.state in READY_STATES


def row_of(
    app: Celery,
    node: Node,
    whole: Mapping[str, Any],
    part_of: str,
    delivery: str,
    place: Place,
) -> Row:
    """Return the row of a task, alone or in a canvas.

    Args:
        app: The Celery application that sends the task.
        node: The task, with its place in the canvas.
        whole: The options of the canvas. Celery gives them to the tasks that it sends
            first.
        part_of: As in :class:`Row`.
        delivery: The name of the delivery.
        place: The line that deferred the task.
    """
    signature = node.signature
    options = {**signature["options"], **(whole if node.is_first else {})}
    headers = options.get("headers") or {}
    task = app.tasks[signature["task"]]  # no other task gets here
    return Row(
        id=signature["options"].get("task_id", ""),
        name=signature["task"],
        args=_arguments(node, options),
        part_of=part_of,
        delivery=delivery,
        # Only Celery knows which other tasks of a canvas get the routing of the whole.
        queue=""
        if whole.keys() & set(ROUTING) and not node.is_first
        else _queue(app, signature, options),
        options=", ".join(
            f"{key}={shortened(value)}"
            for key in _SHOWN
            if (value := options.get(key)) is not None
        ),
        context=_context(headers.get(HEADER)),
        place=place,
        state="" if _keeps_result(task, options) else NOT_KEPT,
    )


def _context(header: Any) -> str:
    text: str = truncate(str(header or ""), MAX_TEXT)
    return "" if text == "{}" else text


def _arguments(node: Node, options: Mapping[str, Any]) -> str:
    """Return the arguments of a call, but hide those that Celery hides in its logs."""
    args: Sequence[Any] = node.signature["args"]
    kwargs: Mapping[str, Any] = node.signature["kwargs"]
    words = ["\N{HORIZONTAL ELLIPSIS}" for _ in node.results_before]
    if hidden := options.get("argsrepr"):
        words.append(str(hidden))
    else:
        words += map(shortened, args[:_MAX_ARGUMENTS])
    if hidden := options.get("kwargsrepr"):
        words.append(str(hidden))
    else:
        first = islice(kwargs.items(), _MAX_ARGUMENTS)
        words += [f"{key}={shortened(value)}" for key, value in first]
    if max(len(args), len(kwargs)) > _MAX_ARGUMENTS:
        words.append("...")
    text: str = truncate(", ".join(words), MAX_TEXT)
    return text


def _queue(
    app: Celery, signature: Mapping[str, Any], options: Mapping[str, Any]
) -> str:
    """Return the queue that a task goes to, and a routing key that differs from it."""
    args, kwargs = signature["args"], signature["kwargs"]
    try:
        found = route(app, signature["task"], args, kwargs, options)
        queue = found["queue"]
        key = found.get("routing_key") or queue.routing_key
    except Exception:  # noqa: BLE001 a router may raise anything, again when it sends
        return ""
    return str(queue.name) if key in {None, queue.name} else f"{queue.name} ({key})"


def _keeps_result(task: Any, options: Mapping[str, Any]) -> bool:
    is_ignored = options.get("ignore_result", task.ignore_result)
    return not is_ignored or task.store_errors_even_if_ignored


def shortened(value: Any) -> str:
    """Return a short repr of any value."""
    try:
        text: str = truncate(saferepr(value, maxlen=_MAX_VALUE), MAX_TEXT)
    except Exception:  # noqa: BLE001 for example, an integer has too many digits
        return f"<{type(value).__name__}>"
    return text


def find_caller() -> Place:
    """Return the nearest line on the call stack that is outside of this package."""
    frame: Any = sys._getframe()  # noqa: SLF001 as logging does
    while str(frame.f_globals.get("__name__")).split(".")[0] == _PACKAGE:
        frame = frame.f_back
    code, number = frame.f_code, frame.f_lineno
    path = code.co_filename
    source = linecache.getline(path, number, frame.f_globals)
    # From the folder of the top package on: "myapp/views.py".
    module = str(frame.f_globals.get("__name__"))
    is_package = path.endswith("__init__.py")
    parts = Path(path).parts[-(module.count(".") + 1 + is_package) :]
    return Place(
        line=f"{'/'.join(parts)}:{number}",
        path=f"{path}:{number}",
        function=code.co_qualname,
        source=truncate(source.strip(), _MAX_VALUE),
    )
