"""The Celery application of a Pyramid application, as Celery and others see it."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
from celery import _state, current_app, signals
from kombu.exceptions import OperationalError
from pyramid.scripting import prepare
from support import free_port


def test_current_application_while_a_task_is_sent(configure) -> None:
    """Receivers of Celery's signals find the task by name; then all is as it was."""
    config = configure(**{"celery.broker_url": "memory://"})
    config.register_task(lambda request: None, name="sent")
    app = config.make_celery_app()
    found = []

    def find(sender, **_):
        found.append(current_app.tasks.get(sender))

    signals.before_task_publish.connect(find)
    signals.after_task_publish.connect(find)
    before = _state._tls.current_app
    with prepare(registry=config.registry) as env:
        env["request"].defer_task("sent")
    assert found == [app.tasks["sent"]] * 2
    assert _state._tls.current_app is before


def test_context_after_a_task_could_not_be_sent(configure) -> None:
    """What a receiver of Celery's signals sets for the sending ends with it."""
    url = f"redis://localhost:{free_port()}/0"
    config = configure(**{"celery.broker_url": url})
    config.register_task(lambda request: None, name="sent")
    config.commit()
    span: ContextVar[str] = ContextVar("span")

    def begin(**_):
        span.set("begun, and ended after the sending")

    signals.before_task_publish.connect(begin)
    with prepare(registry=config.registry) as env, pytest.raises(OperationalError):
        env["request"].defer_task_with_options("sent", retry=False)
    assert span.get(None) is None
