"""The snippets about async tasks, against a server that listens here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import ModuleType

from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare

from pyramid_tasks.testing import capture

PAGE = Document("docs/howto/async.md")
SNIPPETS = PAGE.blocks("python")


def test_async(import_snippets: Callable[..., ModuleType]) -> None:
    """The tasks connect, at once and one by one, also where a loop runs."""
    snippets = import_snippets(*SNIPPETS)
    with Configurator(settings={"celery.broker_url": "memory://"}) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
    server = socket.create_server(("localhost", 0))
    port = server.getsockname()[1]
    snippets.check_site.__defaults__ = (port,)
    with server, prepare(registry=config.registry) as env:
        request = env["request"]
        with capture(config.registry) as deferred:
            snippets.check_view(request)
            sites = ["example.com", "example.org"]
            deferred.assert_deferred(snippets.check_sites, sites)
        with capture(config.registry) as deferred:
            request.defer_task(snippets.check_sites, ["localhost", "nowhere.invalid"])
            asyncio.run(snippets.check_later(request, "localhost"))
            assert deferred.run() == [["localhost"], "reachable"]
