"""Whose fault an error is."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from celery import Celery, group
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError
from redis import exceptions as redis

from pyramid_tasks.delivery.faults import is_state, own_fault


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), True),
        (redis.TimeoutError("Timeout reading from socket"), True),
        (redis.BusyLoadingError("is loading the dataset in memory"), True),
        (redis.ResponseError("OOM command not allowed"), True),
        (redis.ResponseError("WRONGTYPE of a key"), False),
        (OperationalError("Connection refused"), False),
    ],
)
def test_state(error, expected):
    """An error of the state of a broker is known by its name or words, or its cause."""
    assert is_state(error) == expected
    outer = OperationalError("as kombu wraps it")
    outer.__cause__ = error
    assert is_state(outer) == expected


def test_own_fault():
    """Arguments that the serializer of a call, or of the application, cannot hold."""
    app = Celery(set_as_current=False)
    calls = [app.signature("any", (each,)) for each in (1, object())]
    assert own_fault(app, group(calls[:1])) is None
    for wrong in calls[1], group(calls):
        assert "object" in own_fault(app, wrong)
    assert own_fault(app, calls[1].set(serializer="pickle")) is None


def test_time_limit_is_no_fault(monkeypatch):
    """The time limit of the task that sends is no fault of the message."""
    over = Mock(side_effect=SoftTimeLimitExceeded)
    monkeypatch.setattr("pyramid_tasks.delivery.faults.dumps", over)
    app = Celery(set_as_current=False)
    with pytest.raises(SoftTimeLimitExceeded):
        own_fault(app, app.signature("any"))
