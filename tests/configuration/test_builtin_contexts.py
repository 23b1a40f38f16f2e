"""The host, the locale and the user of the request that defers a task; base_url."""

from __future__ import annotations

import json
import struct
import uuid
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
def load(write_ini):
    """Return a function that loads an ini whose tasks run at once."""

    def load(more="", *, name="main", **settings):
        lines = "\n".join(f"pyramid_tasks.{key} = {settings[key]}" for key in settings)
        ini = write_ini(
            f"[app:main]\nuse = call:contextapp:main\n{EAGER}\n{lines}\n{more}"
        )
        return loadapp(f"config:{ini}", name)

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


def eager(configure, **settings):
    own = {f"pyramid_tasks.{key}": value for key, value in settings.items()}
    return configure(
        **{
            "celery.task_always_eager": True,
            "celery.task_eager_propagates": True,
            **own,
        }
    )


# The host.


HOST_KEYS = (
    "route_url",
    "static_url",
    "application_url",
    "host_url",
    "host",
    "script_name",
)

#: What the server says of a request, and the URL of the application then.
PLACES = {
    "browser on port 80": ({"HTTP_HOST": "shop.example"}, "http://shop.example"),
    "port in the host": (
        {"HTTP_HOST": "shop.example:6543", "SERVER_PORT": "6543"},
        "http://shop.example:6543",
    ),
    "https": (
        {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https", "SERVER_PORT": "443"},
        "https://shop.example",
    ),
    "https on another port": (
        {
            "HTTP_HOST": "shop.example:8443",
            "wsgi.url_scheme": "https",
            "SERVER_PORT": "8443",
        },
        "https://shop.example:8443",
    ),
    "https on a server that listens elsewhere": (
        {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https", "SERVER_PORT": "81"},
        "https://shop.example",
    ),
    "address": ({"HTTP_HOST": "192.0.2.1:80"}, "http://192.0.2.1"),
    "IPv6": ({"HTTP_HOST": "[::1]:8080"}, "http://[::1]:8080"),
    "script name": (
        {"HTTP_HOST": "shop.example", "SCRIPT_NAME": "/de"},
        "http://shop.example/de",
    ),
    "script name alone": ({"SCRIPT_NAME": "/de"}, "http://localhost/de"),
    "script name in UTF-8": (
        {"HTTP_HOST": "shop.example", "SCRIPT_NAME": "/\xc3\xa9t\xc3\xa9"},
        "http://shop.example/%C3%A9t%C3%A9",
    ),
}


@pytest.mark.parametrize("base_url", ["", "https://base.example:1/base"])
@pytest.mark.parametrize("place", PLACES)
def test_host(load, place, base_url):
    """URLs in the task are those of the view, however the view was reached."""
    environ, url = PLACES[place]
    app = load(context="host", base_url=base_url)
    view, task = seen(app, **environ)
    assert view["route_url"] == f"{url}/defer/report"
    assert view["static_url"] == f"{url}/static/logo.png"
    for key in HOST_KEYS:
        assert task[key] == view[key]


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
    task = get(app, f"/result/{view['id']}")["result"]
    assert view["view"]["application_url"] == "http://10.0.0.1:8080"
    for key in HOST_KEYS:
        assert task[key] == view["view"][key]


def test_prefix_middleware(load):
    """Behind PasteDeploy's prefix middleware, the host is that of the proxy."""
    prefix = "[filter:proxy]\nuse = egg:PasteDeploy#prefix\nprefix = /shop\n"
    app = load(
        f"filter-with = proxy\n{prefix}", context="host", base_url="http://base.example"
    )
    headers = {
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.1",
    }
    view, task = seen(app, "/shop/defer/report", headers=headers)
    assert task["route_url"] == "https://shop.example/shop/defer/report"
    for key in HOST_KEYS:
        assert task[key] == view[key]


def test_urlmap(load):
    """Below a path of Paste's URL map, URLs have that path."""
    urlmap = "[composite:site]\nuse = egg:Paste#urlmap\n/shop = main\n"
    app = load(urlmap, name="site", context="host")
    view, task = seen(app, "/shop/defer/report", HTTP_HOST="shop.example")
    assert task["route_url"] == "http://shop.example/shop/defer/report"
    for key in HOST_KEYS:
        assert task[key] == view[key]


def test_host_changed_in_the_view(configure):
    """A view may say itself which host the task is to know."""
    config = eager(configure, context="host")
    config.register_task(lambda request: request.application_url, name="it")
    config.commit()
    request = Request.blank("/", base_url="http://intern.example")
    with prepare(request, config.registry):
        request.host, request.scheme = "shop.example", "https"
        assert request.defer_task("it").get() == "https://shop.example"


def test_without_host(load):
    """Without the context, a task does not know the host."""
    view, task = seen(load(), HTTP_HOST="shop.example")
    assert view["application_url"] == "http://shop.example"
    assert task["application_url"] == "http://localhost"


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [("", "http://localhost"), ("https://shop.example/de", "https://shop.example/de")],
)
@pytest.mark.parametrize("how", ["bootstrap", "prepare"])
def test_script(write_ini, how, base_url, expected):
    """The request of a script has no host: its tasks have ``base_url``."""
    ini = write_ini(
        f"[app:main]\nuse = call:contextapp:main\n{EAGER}\n"
        f"pyramid_tasks.context = host\npyramid_tasks.base_url = {base_url}\n"
    )
    if how == "bootstrap":
        env = bootstrap(str(ini))
    else:
        env = prepare(registry=loadapp(f"config:{ini}").registry)
    with env:
        for name in ("report", "report_of_another"):
            found = env["request"].defer_task(name).get()
            if name == "report_of_another":
                found = env["request"].get_task_result(found).get()
            assert found["application_url"] == expected


def test_script_that_says_its_host(write_ini):
    """A script that makes a request for a URL has that host."""
    ini = write_ini(
        f"[app:main]\nuse = call:contextapp:main\n{EAGER}\n"
        "pyramid_tasks.context = host\npyramid_tasks.base_url = https://base.example\n"
    )
    request = Request.blank("/", base_url="https://shop.example/de")
    with bootstrap(str(ini), request=request):
        found = request.defer_task("report").get()
    assert found["application_url"] == "https://shop.example/de"


@pytest.mark.parametrize(
    "value",
    [
        "shop.example",
        1,
        True,
        ["HTTP_HOST", "shop.example"],
        {"HTTP_HOST": 1},
        {"HTTP_COOKIE": "a=b"},
        {"HTTP_HOST": {"a": "b"}},
        {"wsgi.input": "x"},
        {"HTTP_HOST": "a.example\r\nX: y"},
        {"wsgi.url_scheme": "javascript"},
        {"SERVER_PORT": "99999"},
    ],
)
def test_malformed_host(configure, value):
    """A host that is none fails the task, and sets nothing else of the environ."""
    result = run(
        configure(**{"pyramid_tasks.context": "host"}), lambda request: 1, host=value
    )
    with pytest.raises(ValueError, match="task context 'host'"):
        result.get()


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
    assert run(config, task).get() == (
        f"{url}/items/1",
        f"{url}/static/logo.png",
        url,
        host,
        port,
    )


def test_base_url_needs_no_context(load):
    """Without the context, each task has ``base_url``, whoever deferred it."""
    _, task = seen(load(base_url="https://shop.example"), HTTP_HOST="other.example")
    assert task["application_url"] == "https://shop.example"


def test_tasks_share_nothing(configure):
    """What a task does to its environ is not there for the next one."""
    config = configure(**{"pyramid_tasks.base_url": "https://shop.example"})

    def task(request):
        before = request.host
        request.host = "changed.example"
        return before

    config.register_task(task, name="it")
    app = config.make_celery_app()
    hosts = [app.tasks["it"].apply().get() for _ in range(2)]
    assert hosts == ["shop.example", "shop.example"]


@pytest.mark.parametrize(
    "base_url",
    [
        "example.com",
        "//example.com",
        "/app",
        "ftp://example.com",
        "https:example.com",
        "https://",
        "https:///app",
        "https://:8080",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:http",
        "https://exa mple.com",
        "https://a.example\nhttps://b.example",
        "https://example.com/?a=b",
        "https://example.com#top",
        "https://user:password@example.com",
        "https://[::1",
        "https://::1",
    ],
)
def test_wrong_base_url(configure, base_url):
    """What is no URL of an application is an error that names the setting."""
    with pytest.raises(SettingError, match="is not the URL of an application") as error:
        configure(**{"pyramid_tasks.base_url": base_url})
    assert str(error.value).startswith(f"pyramid_tasks.base_url = {base_url} is not")


# The locale.


def write_mo(folder: Path, locale: str, translation: str) -> str:
    """Write the translation of one message, as ``msgfmt`` does."""
    strings = [
        (b"", b"Content-Type: text/plain; charset=utf-8\n"),
        (b"Your order is on its way.", translation.encode()),
    ]
    start = 28 + 16 * len(strings)
    tables, data = [], b""
    for column in (0, 1):
        for pair in strings:
            tables.append((len(pair[column]), start + len(data)))
            data += pair[column] + b"\0"
    head = (0x950412DE, 0, len(strings), 28, 28 + 8 * len(strings), 0, 0)
    numbers = [*head, *(number for entry in tables for number in entry)]
    target = folder / locale / "LC_MESSAGES"
    target.mkdir(parents=True)
    (target / "shop.mo").write_bytes(struct.pack(f"<{len(numbers)}I", *numbers) + data)
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


def test_without_locale(load):
    """Without the context, a task has the default locale."""
    view, task = seen(load(), headers={"X-Language": "de"})
    assert (view["locale_name"], task["locale_name"]) == ("de", "en")


def test_locale_of_the_application(configure):
    """An application's own ``request.locale_name`` is given to the task too."""
    config = eager(configure, context="locale")
    config.add_request_method(
        lambda request: request.headers.get("X-Language"), "locale_name", property=True
    )
    config.register_task(lambda request: request.locale_name, name="it")
    config.commit()
    for language in ("de", None):
        headers = {"X-Language": language} if language else {}
        request = Request.blank("/", headers=headers)
        with prepare(request, config.registry):
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


@pytest.mark.parametrize("value", [1, ["de"], {"de": "de"}, "", "../de", "de\n"])
def test_malformed_locale(configure, value):
    """A locale that is none fails the task."""
    result = run(
        configure(**{"pyramid_tasks.context": "locale"}),
        lambda request: 1,
        locale=value,
    )
    with pytest.raises(ValueError, match="task context 'locale'"):
        result.get()


# The user.


def test_user(load):
    """The task knows who deferred it, and so does a policy of ``REMOTE_USER``."""
    view, task = seen(load(context="user"), headers={"X-User": "anna"})
    assert view["authenticated_userid"] == "anna"
    assert task["deferred_by"] == "anna"
    assert task["authenticated_userid"] == "anna"


def test_no_user(load):
    """Where nobody is logged in, the task knows of nobody."""
    _, task = seen(load(context="user"))
    assert task["deferred_by"] is None
    assert task["authenticated_userid"] is None


def test_without_user(load):
    """Without the context, the task knows of nobody."""
    _, task = seen(load(), headers={"X-User": "anna"})
    assert task["deferred_by"] is None
    assert task["authenticated_userid"] is None


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
    config = eager(configure, context="user")
    config.set_security_policy(Policy(userid))
    config.register_task(
        lambda request: (request.deferred_by, request.environ["REMOTE_USER"]), name="it"
    )
    config.commit()
    with prepare(registry=config.registry) as env:
        assert env["request"].deferred_by is None
        assert env["request"].defer_task("it").get() == (userid, str(userid))


@pytest.mark.parametrize(
    "userid",
    [object(), ["a", 1], True, "a\nb"],
    ids=["object", "list", "bool", "lines"],
)
def test_userid_that_is_none(configure, userid):
    """What is no string, number or UUID travels nowhere, and no task takes it."""
    config = eager(configure, context="user")
    config.set_security_policy(Policy(userid))
    config.register_task(lambda request: 1, name="it")
    config.commit()
    with (
        prepare(registry=config.registry) as env,
        pytest.raises(TypeError, match="task context 'user' cannot travel: a userid"),
    ):
        env["request"].defer_task("it")


@pytest.mark.parametrize("value", [["a", 1], True, "a\nb", {"a": 1}], ids=repr)
def test_malformed_user(configure, value):
    """A userid that is none fails the task."""
    result = run(
        configure(**{"pyramid_tasks.context": "user"}), lambda request: 1, user=value
    )
    with pytest.raises(ValueError, match="task context 'user'"):
        result.get()


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
    "value", ["host user", "host, user", "host\nuser", ["host", "user"]]
)
def test_several_names(configure, value):
    """Names are words with spaces or commas between them, or a list."""
    config = configure(**{"pyramid_tasks.context": value})
    config.commit()
    found = config.introspector.get_category("task contexts")
    assert [each["introspectable"]["name"] for each in found] == ["host", "user"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hosts", "= hosts is not one of host, locale and user. Did you mean host?"),
        ("host session", "= session is not one of host, locale and user. Add others"),
        ("true", "= true is not one of"),
    ],
)
def test_wrong_name(configure, value, message):
    """A context that is not there is an error that names the setting."""
    with pytest.raises(SettingError) as error:
        configure(**{"pyramid_tasks.context": value})
    assert str(error.value).startswith(f"pyramid_tasks.context {message}")
    assert "config.add_task_context()" in str(error.value)


@pytest.mark.parametrize(
    "value", ["host user", "\nhost\nuser", "host user host", ["host", "user"]]
)
def test_names(configure, value):
    """The names stand in one line or several, or in a list; once is enough."""
    config = configure(**{"pyramid_tasks.context": value})
    config.commit()
    category = config.introspector.get_category("task contexts")
    assert {item["introspectable"].title for item in category} == {"host", "user"}


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
