"""Messages that could come from anyone: what they can do to a request and a worker."""

from __future__ import annotations

import json
import re

import pytest
from celery import Celery
from celery.utils import uuid
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kombu.message import Message
from redis import Redis
from support import DEADLINE, QUICK, as_ini, start_worker

from pyramid_tasks.settings import extract_celery_settings
from pyramid_tasks.worker.contexts import HEADER
from pyramid_tasks.worker.environ import HOST_KEYS
from pyramid_tasks.worker.messages import find_problem

KEYS = st.sampled_from(
    [
        *HOST_KEYS,
        *("REMOTE_USER", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "wsgi.input"),
        *("tm.active", "repoze.who.identity", "paste.registry", "beaker.session"),
        "webob._body_file",
    ]
)
TEXTS = st.sampled_from(
    [
        *("https", "a.example:80", "443", "/app", "de", "anna", "../.."),
        *("a\r\nb", "a\0b", ""),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
PLACES = st.dictionaries(KEYS | st.text(), TEXTS | st.text(), max_size=4) | ANYTHING


def context(name, values):
    return values.map(lambda value: {HEADER: json.dumps({name: value})})


# One part at a time, since the first that is wrong hides the others.
HEADERS = st.one_of(
    ANYTHING,
    PLACES.map(lambda value: {"environ": value}),
    (ANYTHING | ANYTHING.map(json.dumps)).map(lambda value: {HEADER: value}),
    context("host", PLACES),
    context("locale", TEXTS | ANYTHING),
    context("user", TEXTS | ANYTHING),
)
#: How each sentence about a header begins.
TOLD = (
    "The header 'environ' ",
    "The headers of the message ",
    f"The header '{HEADER}' is no JSON object",
    "The message has a task context ",
)


def assert_told_or_harmless(state, result, untouched):
    if state == "SUCCESS":
        changed = {
            key
            for key, value in result.items()
            if untouched.get(key) != value and not key.startswith("pyramid_tasks.")
        }
        # The user is that of the context alone, and only a context has a REMOTE_USER.
        assert changed <= {*HOST_KEYS, "locale", "user", "REMOTE_USER"}
        user = result["user"]
        assert result.get("REMOTE_USER") == (None if user is None else str(user))
        assert user is None or type(user) in {str, int, float}
        assert result["locale"].replace("-", "").replace("_", "").isalnum()
        assert not any(ord(sign) < 32 for sign in result.get("HTTP_HOST", ""))
    else:
        assert str(result).startswith(TOLD), repr(result)
        assert "\n" not in str(result)


class Client:
    """A Celery application that sends what it is given."""

    def __init__(self, conf):
        self.app = Celery("client", set_as_current=False)
        prefixed = {f"celery.{key}": value for key, value in conf.items()}
        self.app.conf.update(extract_celery_settings(prefixed))
        self.queue = conf["task_default_queue"]

    def send(self, producer, *, body=None, **headers):
        """Send a message for the task ``look``; headers replace those of Celery."""
        id_ = uuid()
        message = self.app.amqp.as_task_v2(id_, "look")
        headers = {**message.headers, **headers}
        producer.publish(
            message.body if body is None else body,
            exchange="",
            routing_key=self.queue,
            headers={
                name: value for name, value in headers.items() if value is not ...
            },
            serializer="json",
            **message.properties,
        )
        return self.app.AsyncResult(id_)


@pytest.fixture
def ini(redis_queue, write_ini):
    return write_ini(
        "[app:main]\nuse = call:strangersapp:main\n"
        f"pyramid_tasks.context = host locale user\n{as_ini(redis_queue)}\n"
    )


@pytest.mark.acceptance
def test_worker_lives(redis_queue, ini, tmp_path):
    """A worker lives on 1,000 messages of anyone, and its next task is clean."""
    found = []

    # Five at a time, as each example takes a while to make.
    @given(headers=st.lists(HEADERS, min_size=5, max_size=5))
    @settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate])
    def collect(headers):
        found.extend(headers)

    collect()
    assert len(found) == 1000
    client = Client(redis_queue)

    def send(producer, strange):
        # The headers of Celery win.
        known = client.app.amqp.as_task_v2("", "look").headers
        more = strange if isinstance(strange, dict) else {"headers": strange}
        return client.send(
            producer, **{key: more[key] for key in more if key not in known}
        )

    def get(result):
        result.get(timeout=DEADLINE, interval=0.02, propagate=False)
        return result.state, result.result

    with (
        start_worker(ini, "--pool=solo", *QUICK, cwd=tmp_path) as worker,
        client.app.connection_for_write() as connection,
    ):
        producer = connection.Producer()
        state, untouched = get(send(producer, {}))
        assert state == "SUCCESS"
        for strange, result in [(each, send(producer, each)) for each in found]:
            try:
                assert_told_or_harmless(*get(result), untouched)
            except Exception as error:
                error.add_note(f"The headers were {strange!r}.")
                raise
        assert get(send(producer, {})) == ("SUCCESS", untouched)
        assert worker.popen.poll() is None


_SIGNATURE = {"task": "look", "args": [], "kwargs": {}, "options": {}}
#: Values with which Celery alone ends, connects for ever or keeps the message. The
#: dots leave a header out.
UNREADABLE = [
    *(("id", value) for value in (..., None, "", 5, ["a"], {})),
    *(("task", value) for value in ("", ["a"], {"a": 1})),
    *((name, value) for name in ("eta", "expires") for value in ("", "soon", [], 5)),
    *(("timelimit", value) for value in (5, "x", ["a", 1], [1], [-1, None], {"a": 1})),
    *(("stamped_headers", value) for value in (5, [["a"]])),
    *(("shadow", ["a"]), ("stamps", 5), ("group", ["a"]), ("retries", ["a"])),
    *(
        ("errbacks", 5),
        ("body", [[], {}, {"callbacks": 5}]),
        ("body", [[], {}, {"callbacks": [{"task": "x", "options": {}}]}]),
        ("chain", [{**_SIGNATURE, "args": 5}]),
        ("errbacks", [{}]),
        ("chain", ["x"]),
        ("chain", [{"task": "x"}]),
    ),
    *(("chord", 5), ("get", None), ("_children", [5])),
    *(("body", value) for value in (5, "ab", [], [1, 2], [[], {}, 5], [1, 2, 3, 4])),
    *(("body", value) for value in ({"a": 1}, [[], {}, {"get": 1}])),
]
#: What Celery takes, although other clients alone send it.
READABLE = [
    *(("id", value) for value in ("5", "a b/ä", "x" * 400)),
    *(
        ("timelimit", value)
        for value in ([None, None], [3, 0.5], ["0.5", None], [], None)
    ),
    *(
        ("eta", value)
        for value in (..., None, "2020-01-01T00:00:00", "20200101T000000Z")
    ),
    *(("expires", "2999-12-31T23:59:59+14:00"), ("shadow", ""), ("shadow", 5)),
    *(("stamped_headers", value) for value in (None, [], ["a"], "a")),
    *(
        (name, value)
        for name in ("stamps", "chord", "group")
        for value in ([], ..., None)
    ),
    *(("errbacks", [_SIGNATURE]), ("chain", [_SIGNATURE]), ("chord", _SIGNATURE)),
    *(("retries", "1"), ("update", 5), ("root_id", 5), ("origin", ["a"])),
    *(("body", value) for value in ([[], {}, None], [[], {}, {}], {"args": []})),
]


def received(name, value):
    """Return a message as Kombu would, with one part that differs."""
    sent = Celery(set_as_current=False).amqp.as_task_v2("5", "look")
    headers = {**sent.headers, name: value}
    return Message(
        json.dumps(value if name == "body" else sent.body),
        headers={key: value for key, value in headers.items() if value is not ...},
        content_type="application/json",
        content_encoding="utf-8",
    )


def named(name, value):
    """Return what a sentence calls a part of a message."""
    if name != "body":
        return f" has the header '{name}' "
    return (
        " has the (body|options|header '(get|callbacks)') "  # The body has the options.
    )


@pytest.mark.parametrize(("name", "value"), UNREADABLE)
def test_unreadable(name, value):
    """A part that Celery cannot use is named."""
    assert re.search(named(name, value), find_problem(received(name, value)))


@pytest.mark.parametrize(("name", "value"), READABLE)
def test_readable(name, value):
    """What Celery can use is left to Celery."""
    assert find_problem(received(name, value)) is None


@pytest.mark.parametrize(("value", "told"), [("5", False), (..., True)])
def test_body_of_no_type(value, told):
    """Celery tells of a body that it cannot decode, and needs the headers for that."""
    message = received("id", value)
    message.body = "{"
    assert bool(find_problem(message)) is told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("content_type", ["json"], "A message cannot be decoded: "),
        ("content_encoding", 5, "A message cannot be decoded: "),
        ("delivery_info", 5, "A message .* the property 'delivery_info' 5, which is "),
    ],
)
def test_property_of_another_type(name, value, told):
    """Properties that Kombu cannot decode, or Celery cannot use, are told."""
    message = received("id", "5")
    setattr(message, name, value)
    assert re.match(told, find_problem(message))


def test_no_task():
    """Celery tells of a message for no task, whatever else is wrong with it."""
    message = received("id", ...)
    del message.headers["task"]
    assert find_problem(message) is None


def test_time_of_no_zone():
    """A time that the time zone of the application does not have is told."""
    message = received("expires", "0001-01-01T00:00:00")
    assert find_problem(message) is None
    assert "'expires' '0001-" in find_problem(message, "America/New_York")


@pytest.mark.acceptance
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_unreadable_thrown_away(redis_queue, ini, tmp_path, pool):
    """A worker says what is wrong, once each time, and keeps none of the messages."""
    client = Client(redis_queue)
    with (
        start_worker(ini, f"--pool={pool}", "-c1", *QUICK, cwd=tmp_path) as worker,
        client.app.connection_for_write() as connection,
    ):
        producer = connection.Producer()
        for name, value in UNREADABLE:
            client.send(producer, **{name: value})
        assert client.send(producer).get(timeout=DEADLINE)["depth"] == 1
        told = re.findall(
            "ERROR.* (A message .*) The message is thrown.*", worker.output
        )
        for (name, value), sentence in zip(UNREADABLE, told, strict=True):
            assert re.search(named(name, value), sentence), (name, value)
        assert "Traceback" not in worker.output
        # Other tests share the prefix, not the queue.
        key = redis_queue["broker_transport_options.global_keyprefix"] + "unacked"
        kept = client.queue.encode()
        worker.wait_until(lambda: not any(kept in it for it in Redis().hvals(key)))
