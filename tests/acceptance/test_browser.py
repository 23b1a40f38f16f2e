"""The browser that tests of pages are given."""

import asyncio

import pytest
from browser import Browser, start_chromium
from support import wait_until

pytestmark = pytest.mark.acceptance


# The first, as a module's browser is started for the first test that has one.
def test_no_loop_left():
    """After a browser, other tests of the process can run event loops."""
    with start_chromium() as chromium:
        Browser(chromium).open("about:blank")
    asyncio.run(asyncio.sleep(0))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("setTimeout(() => missing())", "missing is not defined"),
        ("console.error('lost')", "lost"),
        ("fetch('http://localhost:1').catch(() => 0)", "Failed to load resource"),
    ],
)
def test_errors(browser, script, error):
    """What a page throws, logs as an error or cannot load fails the test."""
    page = browser.open("about:blank")
    page.evaluate(f"() => {{ {script} }}")
    wait_until(lambda: page.evaluate("true") and browser.errors)
    assert error in browser.errors.pop()
