"""The sample in a browser: its page, its web process and its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import keep_screenshot
from playwright.sync_api import Locator, Page, expect
from support import QUICK, Process, free_port, serve, start_worker, wait_until

if TYPE_CHECKING:
    from browser import Browser

pytestmark = pytest.mark.acceptance

SAMPLE = Path(__file__).parents[2] / "sample"
PORT = str(free_port())

Worker = Callable[[], AbstractContextManager[Process]]

EXPENSES = "2024-05-01,Rent,950.00\n2024-05-02,Groceries,42.10\n"
#: What the worker needs some seconds for.
MANY = EXPENSES * 2500
EVIL = "<img src=x onerror=alert(1)>"

#: Keeps the values of the bar, also those that it has for a moment only.
RECORD = """() => {
    window.values = [];
    const bar = document.querySelector("progress");
    const keep = () => window.values.push(bar.value);
    new MutationObserver(keep).observe(bar, { attributes: true });
}"""


@pytest.fixture(scope="module")
def development_ini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of development.ini, on a free port."""
    ini = tmp_path_factory.mktemp("sample") / "development.ini"
    ini.write_text((SAMPLE / "development.ini").read_text().replace("6543", PORT))
    return ini


@pytest.fixture(scope="module")
def url(development_ini: Path) -> Iterator[str]:
    """Serve the sample, without a worker."""
    with serve(development_ini, int(PORT), cwd=development_ini.parent) as url:
        yield url


@pytest.fixture
def worker(development_ini: Path) -> Worker:
    """Return what starts a worker.

    Only when its messages are in the queue: Kombu (5.3 to 5.7) can read the file of a
    message on the filesystem broker before the message is in it, which ends the worker.
    """
    return partial(start_worker, development_ini, *QUICK, cwd=development_ini.parent)


def upload(page: Page, text: str, name: str = "may.csv") -> None:
    """Send a file by the form of the front page."""
    file = {"name": name, "mimeType": "text/csv", "buffer": text.encode()}
    page.get_by_label("A CSV file").set_input_files(file)
    submit(page)


def paste(page: Page, text: str) -> None:
    """Send rows by the form of the front page."""
    page.get_by_label("Rows, pasted").fill(text)
    submit(page)


def submit(page: Page) -> None:
    """Send the form; wait for the page of the import."""
    page.get_by_role("button", name="Import").click()
    page.wait_for_url("**/imports/*")


def state(page: Page) -> Locator:
    """Return the sentence on how an import is going."""
    return page.get_by_role("status")


def rows_done(page: Page) -> float:
    """Return the value of the progress bar, or 0."""
    return page.evaluate("document.querySelector('progress')?.value ?? 0")


def totals(page: Page) -> list[str]:
    """Return the rows of the totals, once they are there."""
    rows = page.get_by_role("table", name="Totals").get_by_role("row")
    return [" ".join(row.split()) for row in wait_until(rows.all_inner_texts)]


def test_import(browser: Browser, url: str, worker: Worker) -> None:
    """A file is sent, its progress shown, and then its totals and unreadable rows."""
    page = browser.open(url)
    bad = ["2024-05-32,Rent,1", f"{EVIL},Rent,1", "<script>alert(1)</script>,Rent,1"]
    upload(page, MANY + "\n".join(bad), name=f"{EVIL}.csv")
    expect(state(page)).to_contain_text("aiting")
    page.evaluate(RECORD)
    announced = state(page).element_handle()
    with worker():
        said = "5,000 of 5,003 rows imported, 3 could not be read."
        expect(state(page)).to_have_text(said)
    # Screen readers announce what changes in an element that they know.
    assert announced.evaluate("element => element.isConnected")
    values = page.evaluate("window.values")
    assert len({value for value in values if 0 < value < 5_003}) > 1, values
    assert values == sorted(values)
    amounts = ["Groceries 105,250.00", "Rent 2,375,000.00", "Total 2,480,250.00"]
    assert totals(page) == ["Category Amount", *amounts]
    table = page.get_by_role("table", name="Rows that could not be read")
    assert table.locator("code").all_inner_texts() == bad
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{EVIL}.csv")


def test_no_worker(browser: Browser, url: str, worker: Worker) -> None:
    """Without a worker the page says that the import waits, and goes on with one."""
    page = browser.open(url, width=760)
    page.get_by_role("button", name="Fill in").click()
    submit(page)
    expect(state(page)).to_contain_text("Still waiting")
    expect(state(page)).to_contain_text("none is running")
    with worker():
        wait_until(lambda: rows_done(page))
        keep_screenshot(page, "sample-running", 420)
        said = "4,997 of 5,000 rows imported, 3 could not be read."
        expect(state(page)).to_have_text(said)
    keep_screenshot(page, "sample-done", 710)


def test_reload(browser: Browser, url: str, worker: Worker) -> None:
    """A page that is loaded again shows how far the import is, and follows it."""
    page = browser.open(url)
    upload(page, MANY)
    with worker():
        before = wait_until(lambda: rows_done(page))
        page.reload()
        assert rows_done(page) >= before
        page.evaluate(RECORD)
        expect(state(page)).to_have_text("5,000 of 5,000 rows imported.")
    assert page.evaluate("window.values.length")


def test_two_imports(browser: Browser, url: str, worker: Worker) -> None:
    """Two imports run at once, each on its page, and do not mix."""
    rent = browser.open(url)
    books = rent.context.new_page()
    books.goto(url)
    upload(rent, "2024-05-01,Rent,0.01\n" * 2_000)
    upload(books, "2024-05-01,Books,0.02\n" * 2_000)
    with worker():
        wait_until(lambda: rows_done(rent) and rows_done(books))
        assert totals(rent) == ["Category Amount", "Rent 20.00", "Total 20.00"]
        assert totals(books) == ["Category Amount", "Books 40.00", "Total 40.00"]


def test_no_connection(browser: Browser, url: str) -> None:
    """A page that gets no answer says so, and goes on when it gets one."""
    page = browser.open(url)
    paste(page, EXPENSES)
    page.context.set_offline(True)
    expect(state(page)).to_have_text("No answer. Trying again.")
    page.context.set_offline(False)
    expect(state(page)).to_contain_text("aiting")
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in browser.errors)
    browser.errors.clear()


def tab_to(page: Page, target: Locator) -> None:
    """Move the focus by keyboard; see it on everything that it passes."""
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        expect(focused).to_have_css("outline-style", "solid")
        expect(focused).to_have_css("outline-width", "3px")
        if target.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"not reached: {target}")


def test_keyboard(browser: Browser, url: str, worker: Worker, tmp_path: Path) -> None:
    """Everything works without a mouse, and the focus can be seen."""
    file = tmp_path / "by keyboard.csv"
    file.write_text(EXPENSES)
    page = browser.open(url)
    with page.expect_file_chooser() as chooser:
        # After a while, as Chromium is not asked whether it waits for the chooser.
        tab_to(page, page.get_by_label("A CSV file"))
        page.keyboard.press("Space")
    chooser.value.set_files(file)
    tab_to(page, page.get_by_role("button", name="Import"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/imports/*")
    back = page.get_by_role("link", name="All imports")
    tab_to(page, back)
    with worker():
        expect(state(page)).to_have_text("2 of 2 rows imported.")
    # The result has come, and the focus is where it was.
    expect(back).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")
    tab_to(page, page.get_by_role("link", name="by keyboard.csv"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/imports/*")


def check_width(page: Page) -> None:
    """Check that nothing is wider than the window, or beside it."""
    wide = """[...document.querySelectorAll("body *")].filter(
        (element) => element.getBoundingClientRect().right > innerWidth
            || element.scrollWidth > innerWidth
    ).map((element) => element.outerHTML)"""
    assert page.evaluate(wide) == []


def test_narrow(browser: Browser, url: str, worker: Worker) -> None:
    """In a narrow window nothing has to be scrolled sideways, whatever is in a file."""
    page = browser.open(url, width=320)
    check_width(page)
    long = "x" * 100
    upload(page, f"{MANY}{long},{long},{long}", name=f"{long}.csv")
    check_width(page)
    with worker():
        wait_until(lambda: rows_done(page))
        check_width(page)
        assert len(totals(page)) == 4
    check_width(page)
    page.get_by_role("link", name="All imports").click()
    page.wait_for_url(f"{url}/")
    check_width(page)


def test_no_javascript(browser: Browser, url: str, worker: Worker) -> None:
    """Without JavaScript rows are sent, and the page loads itself again."""
    page = browser.open(url, java_script_enabled=False)
    expect(page.get_by_role("button", name="Fill in")).to_be_hidden()
    paste(page, EXPENSES)
    expect(state(page)).to_contain_text("aiting")
    with worker():
        expect(state(page)).to_have_text("2 of 2 rows imported.")
    assert totals(page)[-1] == "Total 992.10"
