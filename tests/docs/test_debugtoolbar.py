"""The panel of the debug toolbar, in a browser, beside a worker."""

from __future__ import annotations

from collections.abc import Callable
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

(SETTINGS,) = Document("docs/howto/debugtoolbar.md").blocks("ini")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def ini(write_ini: Callable[..., Path], redis_queue: dict[str, str], port: int) -> Path:
    """Return an ini with the lines of the documentation."""
    return write_ini(f"""\
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
    browser: Browser, ini: Path, port: int, tmp_path: Path
) -> None:
    """The panel follows a task to its result, escapes all of it, and stops asking."""
    with serve(ini, port, cwd=tmp_path) as url:
        page, asked = open_panel(browser, f"{url}/script")
        expect(page.locator("#pDebugPanel-tasks .badge")).to_have_text("1")
        row = page.locator("#pTasksTable tbody tr")
        expect(row).to_contain_text(SCRIPT.replace("'", r"\'"))
        expect(row).to_contain_text("request.defer_task(echo, SCRIPT)")
        state = row.locator(".label")
        expect(state).to_have_text("PENDING")
        with start_worker(ini, *QUICK, cwd=tmp_path):
            expect(state).to_have_text("SUCCESS", timeout=1000 * DEADLINE)
        expect(row.locator(".pTasksResult")).to_contain_text("<script>")
        keep_screenshot(page, "debugtoolbar", 330)
        expect(page).to_have_title("Pyramid Debug Toolbar")
        states = [asked_for for asked_for in asked if asked_for.endswith("/tasks")]
        assert len(states) > 1
        asked.clear()
        page.clock.run_for(60_000)
        page.evaluate("fetch('/favicon.ico')")
        assert [asked_for for asked_for in asked if asked_for.endswith("/tasks")] == []


def test_server_that_starts_again(
    browser: Browser, ini: Path, port: int, tmp_path: Path
) -> None:
    """The page waits for a server that starts again, which knows nothing of it."""
    with serve(ini, port, cwd=tmp_path) as url:
        page, _ = open_panel(browser, f"{url}/script")
        expect(page.locator("#pTasksTable .label")).to_have_text("PENDING")
    expect(page.locator("#pTasksProblem")).to_be_hidden()
    with serve(ini, port, cwd=tmp_path):
        problem = page.locator("#pTasksProblem")
        expect(problem).to_contain_text("lost", timeout=1000 * DEADLINE)
    browser.errors.clear()  # of what could not be loaded meanwhile
