"""The Celery application of a Pyramid application, as Celery and others see it."""

from __future__ import annotations

import copy
import pickle
import warnings
import weakref

import pytest
from billiard.context import set_spawning_popen
from celery import _state, current_app, shared_task, signals
from celery.schedules import crontab
from pyramid.exceptions import ConfigurationError
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_registry
from support import unique


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


def test_settings_of_a_worker(configure):
    """A setting that only a worker reads is checked, too."""
    config = configure(**{"celery.imports": "nosuchmod"})
    with pytest.raises(ConfigurationError, match="module that is not there: 'nosuchm"):
        config.make_celery_app()


def test_sending(configure):
    """A thread sends through one producer and backend for a while, then as before."""
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    backend = app.backend
    with app.sending("outer", "backend"):
        with app.sending("inner"):
            assert app.producer_or_acquire().__enter__() == "inner"
            assert app.producer_or_acquire("given").__enter__() == "given"
            assert app.backend is backend
        assert app.producer_or_acquire().__enter__() == "outer"
        assert app.backend == "backend"
    assert app.backend is backend


def test_sending_in_greenlets(configure):
    """Greenlets in one thread send through producers of their own."""
    greenlets = pytest.importorskip("greenlet")
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    seen = []

    def send(name):
        with app.sending(name, name):
            main.switch()
            seen.append((app.producer_or_acquire().__enter__(), app.backend))

    main = greenlets.getcurrent()
    one, other = (greenlets.greenlet(send) for _ in range(2))
    one.switch("one")
    other.switch("other")
    one.switch()
    other.switch()
    assert seen == [("one", "one"), ("other", "other")]
    assert app.backend not in {"one", "other"}


APPS = []


def load(_name):
    return APPS.pop()


def pickled(app):
    return pickle.loads(pickle.dumps(app))


@pytest.mark.parametrize("how", [pickled, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("origin", [None, (load, ("config.ini",))])
def test_copy(configure, how, origin):
    """A copy of an application is the application itself: nothing is loaded."""
    app, other = (configure().make_celery_app() for _ in "12")
    app.origin = other.origin = origin
    assert how(app) is app
    assert how(crontab(app=app)).app is app


def test_spawned_process_cannot_load_it(configure):
    """An application that no file made says so where a process is spawned."""
    set_spawning_popen("a process")
    try:
        with pytest.raises(TypeError, match=r"was not loaded from an ini.*with --ini"):
            pickle.dumps(configure().make_celery_app())
    finally:
        set_spawning_popen(None)


def test_another_process(configure):
    """Another process loads it, for several pickles once; beat's subscribers know."""
    app, loaded = (configure().make_celery_app() for _ in "12")
    app.origin = loaded.origin = load, (unique(),)
    APPS.append(loaded)
    pickles = [pickle.dumps(app), pickle.dumps(crontab(app=app))]
    for each in app, loaded:
        each.close()  # as if this process had neither
    assert pickle.loads(pickles[0]) is loaded
    assert any(loaded.loader._uid in key for key, _ in signals.beat_init.receivers)
    _state._register_app(loaded)
    assert pickle.loads(pickles[1]).app is loaded


@pytest.mark.parametrize("number", [1, 2])
def test_another_process_without_an_ini(configure, monkeypatch, number):
    """An application that no file made is the only one there, or nobody knows."""
    monkeypatch.setattr(_state, "_apps", weakref.WeakSet())
    apps = [configure().make_celery_app() for _ in range(number)]
    unpickle, _ = apps[0].__reduce__()
    if number == 1:
        assert unpickle("from another process", None) is apps[0]
    else:
        with pytest.raises(TypeError, match="not loaded from an ini"):
            unpickle("from another process", None)


def test_django(configure, monkeypatch):
    """A Django project in the same environment does not matter."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no.such")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not configure().make_celery_app().fixups


# Several applications in one process.


@pytest.fixture
def two(configure):
    """Return two applications, each with a task of its own and one of a common name."""
    configs = []
    for number in (1, 2):
        config = configure(number=number)
        config.register_task(lambda request: "mine", name=f"only {number}")
        config.register_task(
            lambda request: request.registry.settings["number"], name="common"
        )
        config.commit()
        configs.append(config)
    return configs


@pytest.mark.parametrize("finalize", [False, True])
def test_two_applications(two, finalize):
    """Neither sees the tasks of the other, nor is it the current one of Celery."""
    apps = [config.make_celery_app() for config in two]
    if finalize:
        for app in apps:
            app.finalize()
    two[0].register_task(lambda request: "late", name="late")
    two[0].commit()
    names = {"only 1", "only 2", "common", "late"}  # other tests may share tasks
    own = [names & app.tasks.keys() for app in apps]
    assert own == [{"only 1", "common", "late"}, {"only 2", "common"}]
    assert [app.tasks["common"].apply().get() for app in apps] == [1, 2]
    assert current_app._get_current_object() not in apps


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_shared_tasks(two, when):
    """A shared_task of Celery goes to both, as it is meant to."""
    name = unique()

    def share():
        @shared_task(name=name)
        def increment(x):
            return x + 1

    if when == "before":
        share()
    apps = [config.make_celery_app() for config in two]
    if when == "between":
        share()
    for app in apps:
        app.finalize()
    if when == "after":
        share()
    for app in apps:
        assert app.tasks[name].apply((1,)).get() == 2
        assert app.tasks[name].app is app


def test_registries_are_separate(two):
    """A task of one application, run inside one of the other, has its own registry."""
    first, second = (config.make_celery_app() for config in two)

    def outer(request):
        inner = second.tasks["common"].apply().result
        assert get_current_registry() is two[0].registry
        return request.registry.settings["number"], inner

    two[0].register_task(outer, name="outer")
    two[0].commit()
    assert first.tasks["outer"].apply().get() == (1, 2)
