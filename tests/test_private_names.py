"""The private names of other packages: where they are used, and that they still hold.

A test that fails here says what to look at in the new version of the package.
"""

from __future__ import annotations

import ast
import inspect
import socket
import sys
from collections.abc import Iterator
from functools import wraps
from types import SimpleNamespace

import celery
import click
import click_plugins
import pytest
from amqp.transport import SSLTransport
from celery import Celery, _state, current_app
from celery.app import defaults
from kombu.exceptions import ConnectionLimitExceeded
from paste.deploy import loadwsgi
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_request
from sources import MODULES

from pyramid_tasks import _celery, _kombu, _pyramid
from pyramid_tasks.configuration import _amqp
from pyramid_tasks.configuration._pastedeploy import find_section
from pyramid_tasks.loaders import _click_plugins, _pastedeploy

# The functions that take the name of an attribute as a string.
BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "object"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def used(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module takes from others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from alias.name.split(".")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (node.module or "").split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            # sys._getframe() and os._exit() are in Python's documentation.
            owner = getattr(node.value, "id", "")
            if owner not in sys.stdlib_module_names:
                yield node.attr
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function in BY_STRING:
                yield from (getattr(arg, "value", "") for arg in node.args)


HOMES = [module for module in MODULES if is_private(module.rpartition(".")[2])]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in HOMES])
def test_private_names_have_a_home(module):
    """Only the modules that are there for it use private names of other packages."""
    room, _, _ = module.partition(".")
    own = {
        name
        for other, tree in MODULES.items()
        if other.partition(".")[0] == room
        for name in defined(tree)
    }
    assert {name for name in used(MODULES[module]) if is_private(name)} <= own


@pytest.mark.parametrize("module", HOMES)
def test_homes_tell_their_reasons(module):
    """Such a module says which versions it was tried on, and uses something private."""
    docstring = ast.get_docstring(MODULES[module])
    assert "tried on" in " ".join(docstring.split())


def look_at(where):
    """Fail a test with a sentence that says where to look."""

    def decorate(test):
        @wraps(test)
        def wrapper(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 any error breaks a contract
                pytest.fail(
                    f"{type(error).__name__}: {error}\nThis version of the package has "
                    f"changed a private name. Look at {where}."
                )

        return wrapper

    return decorate


@pytest.fixture
def app() -> Celery:
    servers = {"broker": "memory://", "backend": "cache+memory://"}
    return Celery("contract", set_as_current=False, fixups=[], **servers)


# Celery.


@look_at("celery.app.defaults: NAMESPACES, flatten() and the types of Option")
def test_celery_setting_types():
    """Celery's table of settings has the type of each."""
    types = _celery.SETTING_TYPES
    assert types["broker_url"] == types["result_backend"] == "string"
    assert types["worker_prefetch_multiplier"] == "int"
    assert types["task_always_eager"] == "bool"
    assert types["broker_connection_timeout"] == "float"
    assert types["accept_content"] == "list"
    assert types["broker_transport_options"] == "dict"


@look_at("celery.app.defaults._TO_NEW_KEY, and how celery.app.utils detects settings")
def test_celery_old_setting_names():
    """Celery's table of old names knows the new one."""
    assert _celery.NEW_SETTING_NAMES["BROKER_URL"] == "broker_url"
    assert set(_celery.NEW_SETTING_NAMES.values()) <= set(_celery.SETTING_TYPES)


@look_at("celery.app.defaults, for settings whose declared type is wrong")
def test_celery_misdeclared_settings():
    """The types that we correct are still there, and still wrong."""
    options = dict(defaults.flatten(defaults.NAMESPACES))
    for name, correct in _celery._MISDECLARED.items():
        assert _celery._type_name(options[name].type) != correct


@look_at("celery._state.get_current_app(), which must find what as_current_app() sets")
def test_celery_current_app(app):
    """An application can be the current one for a while, and then the one before is."""
    before = _state._tls.current_app
    with _celery.as_current_app(app):
        assert current_app._get_current_object() is app
    assert _state._tls.current_app is before


@look_at("celery._state, for the state that a worker in a thread changes")
def test_celery_state(app):
    """The state of the process can be kept."""

    def state():
        return (
            _state.default_app,
            _state._tls.current_app,
            _state.task_join_will_block(),
        )

    before = state()
    with _celery.keeping_state():
        app.set_default()
        app.set_current()
        _state._set_task_join_will_block(True)  # noqa: FBT003 as Celery does
        assert _state.task_join_will_block()
        assert current_app._get_current_object() is app
    assert state() == before


@look_at("Celery.backend: where it is kept, and Celery._get_backend() for a new one")
def test_celery_backends(app):
    """A backend is found, once there is one; a new one is another of its class."""
    assert _celery.own_backend(app) is None
    assert app.backend is _celery.own_backend(app)
    new = _celery.new_backend(app)
    assert type(new) is type(app.backend)
    assert new is not app.backend


@look_at("RedisBackend._transport_options, where the options for sentinels are")
def test_celery_set_transport_options(app):
    """A result backend of Redis gives sentinels the options that it is given."""
    app.conf.result_backend = "sentinel://localhost"
    options = {"sentinel_kwargs": {"socket_timeout": 7}, "master_name": "shop"}
    _celery.set_transport_options(app.backend, options)
    pool = app.backend.client.connection_pool
    (sentinel,) = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_kwargs["socket_timeout"] == 7


@look_at("AsyncBackendMixin and its ResultConsumer, Celery._local and Celery.oid")
@pytest.mark.parametrize("url", ["redis://", "rpc://"])
def test_celery_renew_backend(app, url):
    """An application and its results get a backend that has no connection."""
    app.conf.result_backend = url
    result, oid = app.AsyncResult("id"), app.oid
    before = app.backend
    consumer = before.result_consumer
    assert {id(before), id(consumer)} <= {*map(id, _celery.renew_backend(app))}
    assert app.backend is not before
    assert type(result.backend.result_consumer) is type(consumer)
    assert result.backend.result_consumer is not consumer
    result.backend.remove_pending_result(result)
    assert "oid" not in vars(app)
    assert app.oid == oid  # as this is the same process


@look_at("Celery.pool, Celery.backend and AMQP.producer_pool: where each is kept")
def test_celery_caches(app):
    """Pools and result backends can be made anew for a while."""
    before = app.pool, app.producer_pool, app.backend
    with _celery.without_caches(app):
        app.conf.broker_url = "memory://other"
        assert app.pool is not before[0]
        assert app.producer_pool is not before[1]
        assert app.backend is not before[2]
    assert (app.pool, app.producer_pool, app.backend) == before


@look_at("Signature.app and Signature._app in celery.canvas")
def test_celery_signature_app(app):
    """A signature can be given an application, and sends through that."""
    signature = celery.signature("contract")
    _celery.set_app(signature, app)
    assert signature.app is app


@look_at("celery._state._get_active_apps(), which must have all applications")
def test_celery_active_apps(app):
    """The applications of a process are known until they are closed."""
    assert app in _celery.active_apps()
    app.close()
    assert app not in _celery.active_apps()


@look_at("Backend._call_task_errbacks() in celery.backends.base, and what it asks")
@pytest.mark.parametrize(
    ("errback", "bind", "expected"),
    [
        (lambda task_id: task_id, False, 1),
        (lambda failed, error, traceback: failed.id, False, 3),
        (lambda *args: args[0].id, False, 3),
        (lambda self, *args: args[0], True, 1),
    ],
)
def test_celery_errbacks(app, errback, bind, expected):
    """It is known how Celery calls a link_error."""
    told = []

    def fail():
        raise ValueError

    def called(*args):
        told.append(len(args) - bind)
        return errback(*args)

    called.__signature__ = inspect.signature(errback)
    task = app.task(called, name="called", bind=bind, shared=False)
    fail = app.task(fail, shared=False)
    assert _celery.takes_error(task, task.s()) == (expected == 3)
    fail.apply(task_id="id", link_error=task.s())
    assert told == [expected]


@look_at("Task._dump_pydantic_arguments in celery.app.task")
def test_celery_pydantic(app):
    """Models become dictionaries where Celery 5.7 does that when it sends a task."""
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        x: int

    call = (Model(x=1),), {"y": Model(x=2)}
    if celery.VERSION >= (5, 7):

        def it(x, y):
            pass

        it.__annotations__ = {"x": Model, "y": Model}
        it = app.task(it, pydantic=True)
        assert _celery.dump_models(it, *call) == (({"x": 1},), {"y": {"x": 2}})
    assert _celery.dump_models(None, *call) == call


@look_at("pydantic_wrapper in celery.app.base")
def test_celery_pydantic_result(app):
    """A model becomes a dictionary where Celery does that, since 5.5."""
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        x: int

    def it(): ...

    it.__annotations__ = {"return": Model}
    options = {"pydantic": True, "pydantic_dump_kwargs": {"by_alias": True}}
    task = app.task(it, **options)
    value = Model(x=1)
    dumped = {"x": 1} if celery.VERSION >= (5, 5) else value
    assert _celery.dump_result(task, it, value, options) == dumped
    assert _celery.dump_result(task, it, value, {}) == value


# py-amqp.


@look_at("SSLTransport in amqp.transport, for the options that it takes")
def test_amqp_options():
    """The options of TLS are known, and py-amqp takes them."""
    names = _amqp.ssl_options()
    assert {"ca_certs", "cert_reqs", "context", "keyfile", "server_hostname"} <= names
    options = dict.fromkeys(names - {"context", "server_side"})
    options["do_handshake_on_connect"] = False
    transport = SSLTransport("localhost", ssl=options)
    with socket.socket() as sock:
        transport._wrap_socket(sock, **transport.sslopts).close()


# kombu.


@look_at("kombu.resource.Resource: where a pool has its resources")
def test_kombu_pools(app):
    """A pool forgets its connections, and stays the same pool with the same limit."""
    app.conf.broker_url = "memory://"
    with app.pool.acquire() as in_use:
        app.pool.acquire().release()
        inherited = _kombu.renew_pools()
        assert any(in_use in each for each in inherited if isinstance(each, set))
        assert not app.pool._dirty
        found = [app.pool.acquire() for _ in range(app.pool.limit)]
        assert in_use not in found
        with pytest.raises(ConnectionLimitExceeded):
            app.pool.acquire()
    for connection in found:
        connection.release()


# click-plugins, as Celery uses it.


@look_at(
    "click_plugins.with_plugins and celery.bin.celery: entry points must be loaded in "
    "a function whose local variable 'group' is the command"
)
def test_click_plugins_group():
    """An entry point finds the command that it is loaded for."""
    found = []

    def load():
        found.append(_click_plugins.find_celery_group())
        return click.Command("contract")

    entry_point = SimpleNamespace(name="contract", load=load)
    celery_command = click.Group("celery")
    assert click_plugins.with_plugins([entry_point])(celery_command) is celery_command
    assert found == [celery_command]
    assert _click_plugins.find_celery_group() is None


# PasteDeploy.


@pytest.fixture
def loader_of(write_ini):
    """Return a function that makes the loader of an ini."""
    return lambda text: _pastedeploy.CeleryConfigLoader(str(write_ini(text)))


@look_at("paste.deploy.loadwsgi.APP.config_prefixes")
def test_pastedeploy_app_prefixes():
    """The prefixes of the sections that make an application are words."""
    assert {"app", "composite", "pipeline"} <= {*_pastedeploy.APP_PREFIXES}
    assert all(isinstance(prefix, str) for prefix in _pastedeploy.APP_PREFIXES)


@look_at(
    "paste.deploy.loadwsgi: _ObjectType, and get_context(), find_config_section() and "
    "_context_from_explicit() of ConfigLoader"
)
@pytest.mark.parametrize("section", ["celery", "celery:main", "celery:x"])
def test_pastedeploy_sections(section, loader_of):
    """A section of a kind of our own is found, and its factory gets the loader."""
    loader = loader_of(f"[{section}]\nkey = value\n")
    context = loader.get_context(_pastedeploy.CELERY, section.partition(":")[2] or None)
    assert context.local_conf == {"key": "value"}
    assert context.protocol == "paste.celery_factory"
    context.object = lambda loader, global_conf, key: (loader, key)
    assert context.create() == (loader, "value")


@look_at("loadapp(uri, name) and ConfigLoader.get_app(name) in paste.deploy.loadwsgi")
@pytest.mark.parametrize("name", ["main", "x"])
def test_pastedeploy_section_that_is_loaded(write_ini, monkeypatch, name):
    """An application finds the file and the section that it is loaded from."""
    app = SimpleNamespace(make=lambda _: find_section())
    monkeypatch.setitem(sys.modules, "made", app)
    ini = write_ini(f"[app:{name}]\npaste.app_factory = made:make\n")
    assert loadwsgi.loadapp(f"config:{ini}", name) == f"{ini}, [app:{name}]"
    loader = loadwsgi.ConfigLoader(str(ini))
    assert loader.get_app(name) == f"{ini}, [app:{name}]"


@look_at("ConfigLoader.update_defaults() and get_context() in paste.deploy.loadwsgi")
def test_pastedeploy_included_file(loader_of, write_ini):
    """The section of an included file is read by the same reader."""
    write_ini("[celery]\nkey = %(value)s\n", "base.ini")
    loader = loader_of("[celery:main]\nuse = config:base.ini\n")
    context = loader.get_context(_pastedeploy.CELERY, "main", {"value": "a%b"})
    assert context.local_conf == {"key": "a%b"}


@look_at("ConfigLoader in paste.deploy.loadwsgi: what it calls for each section")
@pytest.mark.parametrize(
    ("section", "line"),
    [("pipeline:x", "pipeline = lost"), ("app:x", "use = egg:lost")],
)
def test_pastedeploy_place_of_an_error(loader_of, tmp_path, section, line):
    """An error knows the section and the key that it is about."""
    loader = loader_of(f"[{section}]\n{line}\n")
    with pytest.raises(Exception, match="lost") as caught:
        loader.app_context("x")
    assert caught.value.place == f"{tmp_path}/config.ini, [{section}], {line}"


@look_at("paste.deploy.util.fix_call(), which must add the signature to a TypeError")
def test_pastedeploy_signature():
    """A factory that does not take a key is told with its signature."""

    def factory(loader, global_conf):
        pass

    with pytest.raises(TypeError, match="key"):
        _pastedeploy.fix_call(factory, None, {}, key="value")


# Pyramid.


@look_at("pyramid.threadlocal.manager, where get_current_request() must look")
def test_pyramid_threadlocals():
    """The last entry on the stack has the current request and registry."""
    with prepare(registry=Configurator().registry) as env:
        last = {"request": env["request"], "registry": env["registry"]}
        assert _pyramid.manager.stack[-1] == last
    before = get_current_request()
    _pyramid.manager.stack.append({"request": "ours", "registry": None})
    assert get_current_request() == "ours"
    del _pyramid.manager.stack[-1]
    assert get_current_request() is before


@look_at("pyramid.traversal.DefaultRootFactory, which pyramid.scripting uses too")
def test_pyramid_default_root():
    """Pyramid's scripts use the same root factory where no other is registered."""
    with prepare(registry=Configurator().registry) as env:
        assert type(env["root"]) is _pyramid.DefaultRootFactory


@look_at("CallbackMethodsMixin in pyramid.request: where a request has its callbacks")
def test_pyramid_finished_callbacks():
    """The callbacks of a request can be run."""
    request = Request.blank("/")
    _pyramid.run_finished_callbacks(request)
    seen = []
    request.add_finished_callback(seen.append)
    _pyramid.run_finished_callbacks(request)
    assert seen == [request]
