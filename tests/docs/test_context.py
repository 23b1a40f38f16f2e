"""The snippets about what tasks know of the request that deferred them."""

from __future__ import annotations

from collections.abc import Callable
from configparser import ConfigParser
from types import ModuleType

from documents import Document
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare

from pyramid_tasks.registry import get_tasks

PAGE = Document("docs/howto/context.md")
INI = PAGE.block("Tell tasks about the request", "ini")
TENANT = PAGE.block("A context of your own", "python")


def test_context(import_snippets: Callable[..., ModuleType]) -> None:
    """A task knows what the ini and the snippet say it does."""
    ini = ConfigParser(interpolation=None)
    ini.read_string(INI)
    settings = dict(ini["app:main"]) | {"celery.task_always_eager": True}
    names = ("application_url", "locale_name", "deferred_by", "tenant")

    def know(request: Request) -> list[object]:
        return [getattr(request, name, None) for name in names]

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.include(import_snippets(TENANT).add_tenant)
        config.testing_securitypolicy("anna")
        config.register_task(know, name="know")
    environ = {"HTTP_HOST": "other.example", "HTTP_X_TENANT": "acme"}
    with prepare(Request.blank("/?_LOCALE_=de", environ), config.registry) as env:
        found = env["request"].defer_task("know").get()
        assert found == ["http://other.example", "de", "anna", "acme"]
        headers = {"environ": {"HTTP_HOST": "example.com"}}
        result = env["request"].defer_task_with_options("know", headers=headers)
        assert result.get()[0] == "http://example.com"
    app = get_tasks(config.registry).app
    found = app.tasks["know"].apply().get()
    assert found == ["https://example.com/app", "en", None, None]
