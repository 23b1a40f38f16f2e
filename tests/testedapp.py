"""The application that tests in the documents test, after the cookiecutter."""

TASKS = """
from pyramid_tasks import task


@task
def create_thumbnail(request, name, size=100):
    path = f"{size}/{name}"
    request.defer_task(send_mail, f"{path} is ready")
    return path


@task
def send_mail(request, text): ...
"""
CONFTEST = """
import pytest
import transaction
from myapp import tasks
from pyramid.config import Configurator
from pyramid.scripting import prepare
from webtest import TestApp


def upload(request):
    args = [request.params["name"], 200]
    request.defer_task_with_options(tasks.create_thumbnail, args, countdown=5)
    return ""


@pytest.fixture(scope="session")
def app():
    settings = {"celery.broker_url": "redis://localhost:1/0"}
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    settings["pyramid.includes"] = "pyramid_tm pyramid_tasks.contrib.pyramid_tm"
    with Configurator(settings=settings) as config:
        config.scan(tasks)
        config.add_route("photos", "/photos")
        config.add_view(upload, route_name="photos", renderer="string")
        return config.make_wsgi_app()


@pytest.fixture
def testapp(app):
    return TestApp(app)


@pytest.fixture
def app_request(app):
    with prepare(registry=app.registry) as env:
        yield env["request"]
"""
COOKIECUTTER = """

@pytest.fixture
def tm():
    tm = transaction.TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    yield tm
    tm.abort()


@pytest.fixture
def dbsession(): ...


@pytest.fixture
def testapp(app, tm, dbsession):
    environ = {"tm.active": True, "tm.manager": tm}
    return TestApp(app, extra_environ=environ)
"""
