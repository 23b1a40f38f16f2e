"""The Celery application of a Pyramid application, as Celery and others see it."""

from __future__ import annotations

from celery import _state, current_app, signals
from pyramid.scripting import prepare


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
