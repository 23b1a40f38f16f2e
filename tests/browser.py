"""Chromium, driven by Playwright, with the errors of its pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Page,
    WebError,
    expect,
    sync_playwright,
)
from support import DEADLINE, skip_or_fail

expect.set_options(timeout=DEADLINE * 1000)

#: Any may have it: Debian's, Google's.
COMMANDS = ("chromium", "google-chrome")

#: Where the pictures of the documentation are.
SCREENSHOTS = Path(__file__).parents[1] / "docs" / "_static" / "screenshots"


def keep_screenshot(page: Page, name: str, height: int) -> None:
    """Put the top of a page into the documentation, for ``make screenshots``."""
    if os.environ.get("SCREENSHOTS"):
        width = page.viewport_size["width"]
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        page.screenshot(path=SCREENSHOTS / f"{name}.png", clip=clip)


class Browser:
    """A browser of one test.

    What pages throw and log as errors is in ``errors``, with the place; a test that
    expects some takes them out.
    """

    def __init__(self, chromium: Chromium) -> None:
        self.errors: list[str] = []
        self._chromium = chromium
        self._contexts: list[BrowserContext] = []

    def open(self, url: str, *, width: int = 1280, **options: Any) -> Page:
        """Open a page as somebody else than before: no cookies, no cache.

        ``page.context.new_page()`` opens another one of the same person. The options
        are those of Playwright's ``browser.new_context()``.
        """
        viewport = {"width": width, "height": 800}
        context = self._chromium.new_context(viewport=viewport, **options)
        self._contexts.append(context)
        context.set_default_timeout(DEADLINE * 1000)
        context.on("console", self._keep_message)
        context.on("weberror", self._keep_error)
        page = context.new_page()
        page.goto(url)
        return page

    def close(self) -> None:
        """Close the pages; there must be no errors of them."""
        for context in self._contexts:
            context.close()
        assert not self.errors, "\n".join(self.errors)

    def _keep_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location['url']})")

    def _keep_error(self, error: WebError) -> None:
        self.errors.append(f"{error.error} ({error.page and error.page.url})")


@contextmanager
def start_chromium() -> Iterator[Chromium]:
    """Start what one module shares.

    Until it is closed, an event loop runs in this thread, where ``asyncio.run()`` is
    refused.
    """
    path = next(filter(None, map(shutil.which, COMMANDS)), None)
    if path is None:
        skip_or_fail("Chromium is not installed; install it: apt-get install chromium")
    # It asks nobody but the pages of the test for anything.
    arguments = ["--disable-gpu", "--disable-quic", "--disable-sync"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        with chromium:
            yield chromium
