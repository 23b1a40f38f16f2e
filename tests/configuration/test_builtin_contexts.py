"""The host, the locale and the user of the request that defers a task; base_url."""

from __future__ import annotations

import itertools
import json
import struct
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from paste.deploy import loadapp
from pyramid import testing
from pyramid.authorization import Everyone
from pyramid.paster import bootstrap
from pyramid.request import Request, apply_request_extensions
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks.configuration.builtin_contexts import environ_of
from pyramid_tasks.exceptions import SettingError
from pyramid_tasks.worker.contexts import HEADER

#: Tasks run at once, and their results can be asked for later.
EAGER = """\
celery.task_always_eager = true
celery.task_eager_propagates = true
celery.task_store_eager_result = true
celery.result_backend = cache+memory://
"""


@pytest.fixture
def write(write_ini):
    """Return a function that writes an ini whose tasks run at once."""

    def write(more="", **settings):
        lines = "".join(f"pyramid_tasks.{key} = {settings[key]}\n" for key in settings)
        return write_ini(
            f"[app:main]\nuse = call:contextapp:main\n{EAGER}\n{lines}{more}"
        )

    return write


@pytest.fixture
def load(write):
    """Return a function that loads an ini whose tasks run at once."""

    def load(more="", *, name="main", **settings):
        return loadapp(f"config:{write(more, **settings)}", name)

    return load


def get(app, path, headers=None, **environ):
    """Return the JSON that an application answers to a browser."""
    # Without a port, as a browser says it.
    environ = {"HTTP_HOST": "localhost", **environ}
    request = Request.blank(path, environ, headers=headers)
    return request.get_response(app).json


def seen(app, path="/defer/report", headers=None, **environ):
    """Let a view defer a task; return what each of them says of itself."""
    view = get(app, path, headers, **environ)
    task = get(app, path.replace("defer/report", f"result/{view['id']}"))
    return view["view"], task["result"]


def run(config, func, **context):
    """Run a function as a task whose message has a context."""
    config.register_task(func, name="it")
    headers = {HEADER: json.dumps(context)} if context else None
    return config.make_celery_app().tasks["it"].apply(headers=headers)


@contextmanager
def request_of(config, func, **options):
    """Give a request that can defer a function as the task ``it``, to run at once."""
    config.add_settings({"celery.task_always_eager": True})
    config.register_task(func, name="it")
    config.commit()
    with prepare(Request.blank("/", **options), config.registry) as env:
        yield env["request"]


# The host.


SHOP = {"HTTP_HOST": "shop.example"}
HTTPS = SHOP | {"wsgi.url_scheme": "https"}
#: What the server says of a request, and the URL of the application then.
PLACES = {
    "browser on port 80": (SHOP, "http://shop.example"),
    "port in the host": (
        {"HTTP_HOST": "shop.example:6543", "SERVER_PORT": "6543"},
        "http://shop.example:6543",
    ),
    "https": (HTTPS | {"SERVER_PORT": "443"}, "https://shop.example"),
    "https on another port": (
        HTTPS | {"HTTP_HOST": "shop.example:8443", "SERVER_PORT": "8443"},
        "https://shop.example:8443",
    ),
    "https, listening elsewhere": (
        HTTPS | {"SERVER_PORT": "81"},
        "https://shop.example",
    ),
    "address": ({"HTTP_HOST": "192.0.2.1:80"}, "http://192.0.2.1"),
    "IPv6": ({"HTTP_HOST": "[::1]:8080"}, "http://[::1]:8080"),
    "script name": (SHOP | {"SCRIPT_NAME": "/de"}, "http://shop.example/de"),
    "script name alone": ({"SCRIPT_NAME": "/de"}, "http://localhost/de"),
    "script name in UTF-8": (
        SHOP | {"SCRIPT_NAME": "/\xc3\xa9t\xc3\xa9"},
        "http://shop.example/%C3%A9t%C3%A9",
    ),
}


@pytest.mark.parametrize("base_url", ["", "https://base.example:1/base"])
@pytest.mark.parametrize("place", PLACES)
def test_host(load, place, base_url):
    """URLs in the task are those of the view, however the view was reached."""
    environ, url = PLACES[place]
    view, task = seen(load(context="host", base_url=base_url), **environ)
    assert view["route_url"] == f"{url}/defer/report"
    assert view["static_url"] == f"{url}/static/logo.png"
    assert task == view | {"deferred_by": None}


@pytest.mark.parametrize("base_url", ["", "https://base.example:1/base"])
@pytest.mark.parametrize("without", ["HTTP_HOST", "SCRIPT_NAME"])
def test_environ_without(load, without, base_url):
    """What a server need not say is not taken from ``base_url``.

    HTTP/1.0 has no ``Host``, and WSGI lets an empty script name be left out.
    """
    app = load(context="host", base_url=base_url)
    environ = Request.blank("/defer/report", base_url="http://10.0.0.1:8080").environ
    del environ[without]
    view = Request(environ).get_response(app).json
    assert view["view"]["application_url"] == "http://10.0.0.1:8080"
    task = get(app, f"/result/{view['id']}")["result"]
    assert task == view["view"] | {"deferred_by": None}


PREFIX = "[filter:proxy]\nuse = egg:PasteDeploy#prefix\nprefix = /shop\n"
FORWARDED = {"X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https"}
URLMAP = "[composite:site]\nuse = egg:Paste#urlmap\n/shop = main\n"


@pytest.mark.parametrize(
    ("ini", "name", "headers", "url"),
    [
        (f"filter-with = proxy\n{PREFIX}", "main", FORWARDED, "https://shop.example"),
        (URLMAP, "site", {}, "http://localhost"),
    ],
    ids=["prefix middleware", "URL map"],
)
def test_below_a_path(load, ini, name, headers, url):
    """URLs have the path of Paste's middleware, and the host of the proxy."""
    app = load(ini, name=name, context="host", base_url="http://base.example")
    view, task = seen(app, "/shop/defer/report", headers=headers)
    assert task["route_url"] == f"{url}/shop/defer/report"
    assert task == view | {"deferred_by": None}


def test_host_changed_in_the_view(configure):
    """A view may say itself which host the task is to know."""
    config = configure(**{"pyramid_tasks.context": "host"})
    with request_of(config, lambda request: request.application_url) as request:
        request.host, request.scheme = "shop.example", "https"
        assert request.defer_task("it").get() == "https://shop.example"


@pytest.mark.parametrize(
    ("base_url", "url"),
    [("", "http://localhost"), ("https://base.example", "https://base.example")],
)
def test_without_contexts(load, base_url, url):
    """Without them, a task has ``base_url``, the default locale and nobody's id."""
    headers = {"X-User": "anna", "X-Language": "de"}
    view, task = seen(load(base_url=base_url), headers=headers, **SHOP)
    keys = "application_url", "locale_name", "authenticated_userid"
    assert [view[key] for key in keys] == ["http://shop.example", "de", "anna"]
    assert [task[key] for key in (*keys, "deferred_by")] == [url, "en", None, None]


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [("", "http://localhost"), ("https://shop.example/de", "https://shop.example/de")],
)
@pytest.mark.parametrize("how", ["bootstrap", "prepare"])
def test_script(write, how, base_url, expected):
    """The request of a script has no host: its tasks have ``base_url``."""
    ini = str(write(context="host", base_url=base_url))
    if how == "bootstrap":
        env = bootstrap(ini)
    else:
        env = prepare(registry=loadapp(f"config:{ini}").registry)
    with env:
        defer, find = env["request"].defer_task, env["request"].get_task_result
        assert defer("report").get()["application_url"] == expected
        inner = defer("report_of_another").get()
        assert find(inner).get()["application_url"] == expected


def test_script_that_says_its_host(write):
    """A script that makes a request for a URL has that host."""
    ini = str(write(context="host", base_url="https://base.example"))
    request = Request.blank("/", base_url="https://shop.example/de")
    with bootstrap(ini, request=request):
        found = request.defer_task("report").get()
    assert found["application_url"] == "https://shop.example/de"


#: What others may have written into a message.
MALFORMED = {
    "host": [
        *("shop.example", 1, True, ["HTTP_HOST", "shop.example"]),
        *({"HTTP_HOST": 1}, {"HTTP_COOKIE": "a=b"}, {"HTTP_HOST": {"a": "b"}}),
        *({"wsgi.input": "x"}, {"HTTP_HOST": "a.example\r\nX: y"}),
        *({"wsgi.url_scheme": "javascript"}, {"SERVER_PORT": "99999"}),
    ],
    "locale": [1, ["de"], {"de": "de"}, "", "../de", "de\n"],
    "user": [["a", 1], True, "a\nb", {"a": 1}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in MALFORMED for value in MALFORMED[name]],
    ids=repr,
)
def test_malformed_value(configure, name, value):
    """A value that is no host, locale or userid fails the task."""
    config = configure(**{"pyramid_tasks.context": name})
    with pytest.raises(ValueError, match=f"task context '{name}'"):
        run(config, lambda request: 1, **{name: value}).get()


# base_url.


@pytest.mark.parametrize(
    ("base_url", "url", "host"),
    [
        ("https://shop.example", "https://shop.example", "shop.example"),
        ("https://shop.example/", "https://shop.example", "shop.example"),
        ("http://shop.example:8080", "http://shop.example:8080", "shop.example:8080"),
        ("https://shop.example:443/de", "https://shop.example/de", "shop.example"),
        ("http://shop.example:443", "http://shop.example:443", "shop.example:443"),
        ("https://shop.example/a/b/", "https://shop.example/a/b", "shop.example"),
        ("HTTPS://shop.example", "https://shop.example", "shop.example"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x", "[::1]:8080"),
        ("http://localhost", "http://localhost", "localhost"),
        ("https://a.example/%C3%A9", "https://a.example/%C3%A9", "a.example"),
        ("https://a.example/é", "https://a.example/%C3%A9", "a.example"),
    ],
)
def test_base_url(configure, base_url, url, host):
    """A task that no request deferred makes URLs that begin with ``base_url``."""
    config = configure(**{"pyramid_tasks.base_url": base_url})
    config.add_route("item", "/items/{id}")
    config.add_static_view("static", "contextapp:static")

    def task(request):
        return (
            request.route_url("item", id=1),
            request.static_url("contextapp:static/logo.png"),
            request.application_url,
            request.host,
            request.host_port,
        )

    port = environ_of(base_url)["SERVER_PORT"]
    logo = f"{url}/static/logo.png"
    assert run(config, task).get() == (f"{url}/items/1", logo, url, host, port)


def test_tasks_share_nothing(configure):
    """What a task does to its environ is not there for the next one."""
    config = configure(**{"pyramid_tasks.base_url": "https://shop.example"})

    def task(request):
        before, request.host = request.host, "changed.example"
        return before

    hosts = [run(config, task).get() for _ in range(2)]
    assert hosts == ["shop.example", "shop.example"]


@pytest.mark.parametrize(
    "base_url",
    [
        *("example.com", "//example.com", "/app", "ftp://example.com"),
        *("https:example.com", "https://", "https:///app", "https://:8080"),
        *("https://example.com:", "https://example.com:0", "https://example.com:65536"),
        *("https://example.com:http", "https://exa mple.com", "https://[::1"),
        *("https://a.example\nhttps://b.example", "https://example.com/?a=b"),
        *("https://example.com#top", "https://user:password@example.com"),
        "https://::1",
    ],
)
def test_wrong_base_url(configure, base_url):
    """What is no URL of an application is an error that names the setting."""
    with pytest.raises(SettingError, match="is not the URL of an application") as error:
        configure(**{"pyramid_tasks.base_url": base_url})
    told = "********" if "@" in base_url else base_url
    assert str(error.value).startswith(f"pyramid_tasks.base_url = {told} is not")


# The locale.


def write_mo(folder: Path, locale: str, translation: str) -> str:
    """Write the translation of one message, as ``msgfmt`` does."""
    messages = [b"", b"Your order is on its way."]
    translations = [b"Content-Type: text/plain; charset=utf-8\n", translation.encode()]
    texts = [*messages, *translations]
    places = itertools.accumulate((len(text) + 1 for text in texts), initial=60)
    table = zip(map(len, texts), places, strict=False)
    head = (0x950412DE, 0, len(messages), 28, 44, 0, 0)
    target = folder / locale / "LC_MESSAGES"
    target.mkdir(parents=True)
    packed = struct.pack("<15I", *head, *itertools.chain(*table))
    (target / "shop.mo").write_bytes(packed + b"\0".join([*texts, b""]))
    return str(folder)


def test_locale(load, tmp_path):
    """The task has the locale of the view, whose negotiator needs a header."""
    folder = write_mo(tmp_path / "locale", "de", "Ihre Bestellung ist unterwegs.")
    app = load(f"contextapp.locale = {folder}", context="locale")
    view, task = seen(app, headers={"X-Language": "de"})
    assert task["locale_name"] == "de"
    assert task["translated"] == "Ihre Bestellung ist unterwegs."
    assert view["translated"] == task["translated"]
    _, other = seen(app)
    assert other["locale_name"] == "en"
    assert other["translated"] == "Your order is on its way."


def test_locale_of_the_application(configure):
    """An application's own ``request.locale_name`` is given to the task too."""
    config = configure(**{"pyramid_tasks.context": "locale"})
    config.add_request_method(
        lambda request: request.headers.get("X-Language"), "locale_name", property=True
    )

    def task(request):
        return request.locale_name

    for language, headers in ("de", {"X-Language": "de"}), (None, {}):
        with request_of(config, task, headers=headers) as request:
            assert request.defer_task("it").get() == language


@pytest.mark.parametrize(
    "value", ["de", "pt-BR", "zh_Hans_TW", "sr@latin", "de_DE.UTF-8", "es_419"]
)
def test_locales(configure, value):
    """A locale is a tag as in HTTP, or a name as in gettext."""
    config = configure(**{"pyramid_tasks.context": "locale"})
    found = run(config, lambda request: request.locale_name, locale=value)
    assert found.get() == value


def test_what_a_browser_made_up_stays_behind(load):
    """A host, a port and a locale that no task would take do not travel with it."""
    app = load(context="host locale", base_url="https://base.example")
    environ = {"HTTP_HOST": "a b", "SERVER_NAME": "a.example", "SERVER_PORT": "/a.sock"}
    _, task = seen(app, headers={"X-Language": "../../de"}, **environ)
    assert task["host_url"] == "http://a.example:443"
    assert task["locale_name"] == "en"


# The user.


def test_user(load):
    """The task knows who deferred it, if anybody, as does a policy of REMOTE_USER."""
    app = load(context="user")
    for user, headers in ("anna", {"X-User": "anna"}), (None, {}):
        view, task = seen(app, headers=headers)
        assert view["authenticated_userid"] == user
        assert task["deferred_by"] == task["authenticated_userid"] == user


class Policy:
    """A security policy by which everybody is the same."""

    def __init__(self, userid):
        self.userid = userid

    def authenticated_userid(self, request):
        return None if request.current_task else self.userid

    def effective_principals(self, request):
        return [Everyone]


@pytest.mark.parametrize("userid", [7, 0, 1.5, uuid.UUID(int=7), "", "ä"])
def test_userids(configure, userid):
    """``deferred_by`` is the userid itself; ``REMOTE_USER`` is a string."""
    config = configure(**{"pyramid_tasks.context": "user"})
    config.set_security_policy(Policy(userid))

    def task(request):
        return request.deferred_by, request.environ["REMOTE_USER"]

    with request_of(config, task) as request:
        assert request.deferred_by is None
        assert request.defer_task("it").get() == (userid, str(userid))


@pytest.mark.parametrize("userid", [object(), ["a", 1], True, "a\nb"], ids=type)
def test_userid_that_is_none(configure, userid):
    """What is no string, number or UUID travels nowhere, and no task takes it."""
    config = configure(**{"pyramid_tasks.context": "user"})
    config.set_security_policy(Policy(userid))
    with (
        request_of(config, lambda request: 1) as request,
        pytest.raises(TypeError, match="task context 'user' cannot travel: a userid"),
    ):
        request.defer_task("it")


def test_all_of_them_are_handed_on(load):
    """A task of a task knows the host, the locale and the user of the view."""
    app = load(context="host locale user", base_url="http://base.example")
    headers = {"X-User": "anna", "X-Language": "de"}
    environ = {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https"}
    path = "/defer/report_of_another"
    answer = get(app, path, headers, **environ)
    inner = get(app, f"/result/{answer['id']}")["result"]
    found = get(app, f"/result/{inner}")["result"]
    assert found == {**answer["view"], "deferred_by": "anna"}


# Settings.


@pytest.mark.parametrize(
    "value",
    [
        *("host user", "host, user", "host\nuser", "\nhost\nuser", "host user host"),
        ["host", "user"],
    ],
)
def test_names(configure, value):
    """Names are words with spaces or commas between them, or a list; once is enough."""
    config = configure(**{"pyramid_tasks.context": value})
    config.commit()
    found = config.introspector.get_category("task contexts")
    assert [each["introspectable"]["name"] for each in found] == ["host", "user"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hosts", "= hosts is not one of host, locale and user. Did you mean host?"),
        ("host session", "= session is not one of host, locale and user. What the app"),
        ("true", "= true is not one of"),
    ],
)
def test_wrong_name(configure, value, message):
    """A context that is not there is an error that names the setting."""
    with pytest.raises(SettingError) as error:
        configure(**{"pyramid_tasks.context": value})
    assert str(error.value).startswith(f"pyramid_tasks.context {message}")
    assert "config.add_task_context()" in str(error.value)


def test_dummy_request():
    """The request of a unit test can defer, with all of them."""
    settings = {
        "celery.broker_url": "memory://",
        "celery.task_default_queue": unique(),
        "pyramid_tasks.context": "host locale user",
    }
    with testing.testConfig(settings=settings) as config:
        config.include("pyramid_tasks")
        config.register_task(lambda request: 1, name="it")
        request = testing.DummyRequest()
        apply_request_extensions(request)
        assert request.defer_task("it").id
