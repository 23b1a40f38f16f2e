"""Messages that could come from anyone: what their headers can do to a request."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.threadlocal import manager

from pyramid_tasks.worker.contexts import HEADER
from pyramid_tasks.worker.environ import HOST_KEYS

KEYS = st.sampled_from(
    [
        *HOST_KEYS,
        *(
            "REMOTE_USER",
            "HTTP_COOKIE",
            "HTTP_AUTHORIZATION",
            "wsgi.input",
            "tm.active",
        ),
        *(
            "repoze.who.identity",
            "paste.registry",
            "beaker.session",
            "webob._body_file",
        ),
    ]
)
TEXTS = st.sampled_from(
    [
        "https",
        "a.example:80",
        "443",
        "/app",
        "de",
        "anna",
        "../..",
        "a\r\nb",
        "a\0b",
        "",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
PLACES = st.dictionaries(KEYS | st.text(), TEXTS | st.text(), max_size=4) | ANYTHING
# One part at a time, since the first that is wrong hides the others.
HEADERS = st.one_of(
    ANYTHING,
    st.builds(lambda value: {"environ": value}, PLACES),
    st.builds(lambda value: {HEADER: value}, ANYTHING | ANYTHING.map(json.dumps)),
    *(
        st.builds(lambda value, name=name: {HEADER: json.dumps({name: value})}, values)
        for name, values in {
            "host": PLACES,
            "locale": TEXTS | ANYTHING,
            "user": TEXTS | ANYTHING,
        }.items()
    ),
)
#: How each sentence about a header begins.
TOLD = (
    "The header 'environ' ",
    "The headers of the message ",
    f"The header '{HEADER}' is no JSON object",
    "The message has a task context ",
)


def look(request):
    """What the message could have changed, and what an application does with it."""
    assert request.host_url.startswith(("http://", "https://"))
    assert request.localizer.locale_name == request.locale_name
    return {
        key: value
        for key, value in request.environ.items()
        if isinstance(value, str) and key != HEADER
    } | {"locale": request.locale_name, "user": request.deferred_by}


@pytest.fixture(scope="module")
def task():

    config = Configurator(settings={"pyramid_tasks.context": "host locale user"})
    config.include("pyramid_tasks")
    config.register_task(look, name="look")
    task = config.make_celery_app().tasks["look"]
    return task, task.apply().get()


@given(headers=HEADERS)
@settings(max_examples=200, deadline=None)
def test_headers_of_anyone(task, headers):
    """Headers set what URLs are made of, locale and user, or fail in one sentence."""
    look, untouched = task
    depth = len(manager.stack)
    result = look.apply(headers=headers)
    if result.state == "SUCCESS":
        changed = {
            key
            for key, value in result.result.items()
            if untouched.get(key) != value and not key.startswith("pyramid_tasks.")
        }
        # The user is that of the context alone, and only a context has a REMOTE_USER.
        assert changed <= {*HOST_KEYS, "locale", "user", "REMOTE_USER"}
        user = result.result["user"]
        assert result.result.get("REMOTE_USER") == (None if user is None else str(user))
        assert user is None or type(user) in {str, int, float}
        assert result.result["locale"].replace("-", "").replace("_", "").isalnum()
        assert not any(ord(sign) < 32 for sign in result.result.get("HTTP_HOST", ""))
    else:
        assert str(result.result).startswith(TOLD), repr(result.result)
        assert "\n" not in str(result.result)
    assert len(manager.stack) == depth
    assert look.apply().get() == untouched
