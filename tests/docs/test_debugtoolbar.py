"""The panel of the debug toolbar, in a browser, beside a worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import keep_screenshot
from documents import Document
from playwright.sync_api import Page, expect
from support import DEADLINE, QUICK, as_ini, free_port, serve, start_worker
from toolbarapp import SCRIPT

if TYPE_CHECKING:
    from browser import Browser

pytestmark = pytest.mark.acceptance

Serving = Callable[[], AbstractContextManager[str]]

(SETTINGS,) = Document("docs/howto/debugtoolbar.md").blocks("ini")


@pytest.fixture
def serving(write_ini: Callable[..., Path], redis_queue: dict[str, str]) -> Serving:
    """Return what serves an application with the lines of the documentation."""
    port = free_port()
    ini = write_ini(f"""\
{SETTINGS}
use = call:toolbarapp:main
{as_ini(redis_queue)}

[celery:main]
use = egg:pyramid_tasks
worker_concurrency = 1

[server:main]
use = egg:waitress#main
listen = localhost:{port}
""")
    return partial(serve, ini, port, cwd=ini.parent)


def open_panel(browser: Browser, url: str) -> tuple[Page, list[str]]:
    """Open a page, and the panel of its request; return also what that asks for."""
    page = browser.open(url)
    link = page.locator("#pShowToolBarButton").get_attribute("href")
    assert link
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.goto(link)
    page.locator("#pDebugPanel-tasks a").click()
    return page, asked


def test_task_from_pending_to_success(
    browser: Browser, serving: Serving, tmp_path: Path
) -> None:
    """The panel follows a task to its result, escapes all of it, and stops asking."""
    with serving() as url:
        page, asked = open_panel(browser, f"{url}/script")
        expect(page.locator("#pDebugPanel-tasks .badge")).to_have_text("1")
        row = page.locator("#pTasksTable tbody tr")
        expect(row).to_contain_text(SCRIPT.replace("'", r"\'"))
        expect(row).to_contain_text("request.defer_task(echo, SCRIPT)")
        state = row.locator(".label")
        expect(state).to_have_text("PENDING")
        with start_worker("config.ini", *QUICK, cwd=tmp_path):
            expect(state).to_have_text("SUCCESS", timeout=1000 * DEADLINE)
            ordered, _ = open_panel(browser, f"{url}/order")
            result = ordered.locator(".pTasksResult")
            expect(result).to_contain_text("sent_to", timeout=1000 * DEADLINE)
            keep_screenshot(ordered, "debugtoolbar", 330)
        expect(row.locator(".pTasksResult")).to_contain_text("<script>")
        expect(page).to_have_title("Pyramid Debug Toolbar")
        assert len([each for each in asked if each.endswith("/tasks")]) > 1
        asked.clear()
        page.clock.run_for(60_000)
        page.evaluate("fetch('/favicon.ico')")
        assert not [each for each in asked if each.endswith("/tasks")]
        browser.close()  # the toolbar asks the server for as long as a page is open


def test_server_that_starts_again(browser: Browser, serving: Serving) -> None:
    """The page waits for a server that starts again, which knows nothing of it."""
    with serving() as url:
        page, _ = open_panel(browser, f"{url}/script")
        expect(page.locator("#pTasksTable .label")).to_have_text("PENDING")
    expect(page.locator("#pTasksProblem")).to_be_hidden()
    with serving():
        problem = page.locator("#pTasksProblem")
        expect(problem).to_contain_text("lost", timeout=1000 * DEADLINE)
        page.context.close()
    browser.errors.clear()  # of what could not be loaded meanwhile
