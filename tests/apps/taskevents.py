"""An add-on that notes the events of tasks in a file: the setting events.log."""

import os
from pathlib import Path

from pyramid.threadlocal import get_current_request

from pyramid_tasks import AfterTask, BeforeTask, TaskFailed, TaskRetried


def note(event):
    assert get_current_request() is event.request
    path = Path(event.request.registry.settings["events.log"])
    told = getattr(event, "exception", getattr(event, "result", ""))
    with path.open("a") as file:
        file.write(f"{event.task.request.id} {type(event).__name__} {told!r}\n")


def refuse(event):
    if event.kwargs.get("label") == "refused":
        raise RuntimeError(f"refused in process {os.getpid()}")


def includeme(config):
    for event_type in (BeforeTask, AfterTask, TaskFailed, TaskRetried):
        config.add_subscriber(note, event_type)
    config.add_subscriber(refuse, BeforeTask)
