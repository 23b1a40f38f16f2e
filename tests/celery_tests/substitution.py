"""Applications, tasks and calls of Celery's tests, made as this package makes them."""

import inspect
import os
from contextvars import ContextVar
from functools import wraps
from unittest import mock

import zope.sqlalchemy
from celery import Celery, Task, canvas
from celery.contrib.testing import app as testing
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from pyramid_tasks.application import PyramidCelery
from pyramid_tasks.configuration import celery_app
from pyramid_tasks.contrib.outbox_table import metadata

make_task = Celery._task_from_fun

#: The way of the calls to the broker, in the tests that have a worker.
DELIVERY = os.environ.get("CELERY_TESTS_DELIVERY")


class RegisteringCelery(PyramidCelery):
    """An application that registers with Pyramid the tasks that it is to make."""

    registers = True

    def _task_from_fun(self, fun, name=None, *, bind=False, **options):
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        is_own = name.startswith("celery.") and fun.__module__.startswith("celery.")
        if not self.registers or is_own or name in self._tasks:
            return make_task(self, fun, name, bind=bind, **options)
        config = Configurator(registry=self.registry, autocommit=True)
        func = with_request(fun, bind=bind)
        with mock.patch.object(
            self, "registers", new=False
        ):  # what register_task makes
            config.register_task(func, name=name, bind=bind, **options)
        task = self._tasks[name]
        # Celery accepts the same function twice. It knows the function by this.
        type(task)._decorated_fun = staticmethod(fun)
        return task


class TestedCelery(RegisteringCelery):
    """An application of this package that takes the arguments of Celery's own."""

    def __init__(self, main=None, **options):
        settings = {"tm.manager_hook": "pyramid_tm.explicit_manager"}
        config = Configurator(settings=settings, autocommit=True)
        super().__init__(config.registry, main=main, **options)
        # The settings are those that a test gives, in the ways of Celery.
        with (
            mock.patch.object(celery_app, "PyramidCelery", return_value=self),
            mock.patch.object(celery_app, "names_broker"),
            mock.patch.object(self, "config_from_object"),
        ):
            config.include("pyramid_tasks")
            if DELIVERY:
                config.include("pyramid_tm")
                config.include("pyramid_tasks.contrib.pyramid_tm")
                config.add_request_method(dbsession, reify=True)


def with_request(fun, *, bind):
    """Return a function that takes a request before the arguments of another one."""

    @wraps(fun)
    def func(*args, **kwargs):
        assert args[bind].registry
        return fun(*args[:bind], *args[bind + 1 :], **kwargs)

    signature = inspect.signature(fun)
    parameters = list(signature.parameters.values())
    if not bind or parameters[0].kind != inspect.Parameter.VAR_POSITIONAL:
        kind = parameters[0].kind if bind else inspect.Parameter.POSITIONAL_ONLY
        parameters.insert(bind, inspect.Parameter("_request", kind))
    func.__signature__ = signature.replace(parameters=parameters)
    return func


engine = create_engine(
    f"sqlite:///{os.environ.get('CELERY_TESTS_FOLDER')}/outbox.sqlite"
)


def dbsession(request):
    session = Session(engine)
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


#: Whether a call has become one of a request. The sender of the outbox, in its thread,
#: sends in the context of that call.
is_deferred = ContextVar("is_deferred", default=False)

CANVASES = (canvas._chain, canvas.group, canvas._chord, canvas.chunks)


def by_request(apply_async):
    """Have the request of an application defer what would be sent."""

    @wraps(apply_async)
    def wrapper(self, args=None, kwargs=None, **options):
        app = self.app
        is_ours = isinstance(app, TestedCelery)
        # An eager task is not delivered.
        if is_deferred.get() or not is_ours or app.conf.task_always_eager:
            return apply_async(self, args, kwargs, **options)
        token = is_deferred.set(True)
        try:
            # defer_canvas() has no arguments for a canvas.
            if isinstance(self, CANVASES) and (args or kwargs):
                return apply_async(self, args, kwargs, **options)
            options["delivery"] = DELIVERY
            # In a transaction, which commits.
            with prepare(Request.blank("/"), app.registry) as env, env["request"].tm:
                if isinstance(self, Task):
                    defer = env["request"].defer_task_with_options
                    return defer(self, args or (), kwargs, **options)
                return env["request"].defer_canvas(self.clone(args, kwargs), **options)
        finally:
            is_deferred.reset(token)

    return wrapper


def substitute():
    """Substitute the applications of Celery's tests, and with a delivery the calls."""
    testing.Celery = TestedCelery
    if DELIVERY:
        metadata.create_all(engine)
        for kind in (Task, canvas.Signature, canvas._basemap, *CANVASES):
            kind.apply_async = by_request(kind.apply_async)
