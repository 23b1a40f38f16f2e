"""The pages and the JSON of the sample."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sampleapp.models import BadRow, Expense, Import, now
from sampleapp.tasks import import_expenses

from pyramid_tasks.testing import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Site
    from webtest import TestResponse

CSV = """\
date,category,amount
2024-05-01,Rent,950.00
2024-05-02,Groceries,42.10
2024-05-03,Groceries,0.90
2024-05-32,Groceries,1.00
"""
TOTALS = {"Groceries": "43.00", "Rent": "950.00"}
FORM = "application/x-www-form-urlencoded"
JSON = {"Accept": "application/json"}
KEYS = [
    *(
        "bad_rows",
        "created",
        "error",
        "id",
        "more_totals",
        "name",
        "notice",
        "rows_bad",
    ),
    *("rows_done", "rows_total", "stalled", "status", "task_id", "totals", "url"),
]


def post_csv(site: Site, body: bytes | str, status: int = 201) -> TestResponse:
    """Send a bare CSV, as `curl --data-binary` does."""
    data = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": "text/csv", "Accept": "*/*"}
    return site.pages.post("/imports", data, headers=headers, status=status)


def submit(site: Site, text: str = "", file: tuple[str, bytes] | None = None) -> Any:
    """Fill in the form of the front page."""
    form = site.pages.get("/").form
    form["text"] = text
    if file is not None:
        form["file"] = file
    return form.submit(expect_errors=True)


class TestForm:
    """The front page."""

    def test_pasted_text(self, site: Site) -> None:
        """Pasted rows are imported, and the browser is led to their page."""
        response = submit(site, CSV)
        assert response.status_int == 303
        page = response.follow()
        assert "Pasted text" in page.html.h1.text
        cells = [cell.text for cell in page.html.find(class_="totals").find_all("td")]
        assert cells == ["43.00", "950.00", "993.00"]

    @pytest.mark.parametrize(
        ("text", "path", "data", "totals"),
        [
            ("", "C:\\data\\May.csv", CSV.encode(), TOTALS),
            ("", "May.csv", CSV.encode("utf-8-sig"), TOTALS),  # as Excel writes it
            ("2024-01-01,Text,1", "May.csv", b"2024-01-01,File,1", {"File": "1.00"}),
        ],
    )
    def test_uploaded_file(
        self, site: Site, text: str, path: str, data: bytes, totals: dict[str, str]
    ) -> None:
        """A file is imported under its name, whatever was pasted besides."""
        page = submit(site, text, file=(path, data)).follow()
        assert page.html.h1.text == "May.csv"
        assert site.json(1)["totals"] == totals

    def test_latest_imports(self, site: Site) -> None:
        """The front page lists the latest imports, the last one first, if any."""
        assert "Nothing has been imported yet." in site.pages.get("/")
        for number in range(25):
            site.add(name=f"file {number}.csv", task_id=str(number))
        rows = site.pages.get("/").html.find_all("a", href=True)
        names = [row.text for row in rows if row["href"].startswith("/imports/")]
        assert names == [f"file {number}.csv" for number in range(24, 4, -1)]

    def test_address_of_the_form(self, site: Site) -> None:
        """Who loads the address that the form is sent to is led to the form."""
        assert site.pages.get("/imports").location == "http://localhost/"


class TestForgery:
    """Requests that a page of another site can make a browser send."""

    def test_without_token(self, site: Site) -> None:
        """A form without the token is refused; what was typed is kept."""
        response = site.pages.post("/imports", {"text": CSV}, status=400)
        assert "send it again" in response.html.find(id="error").text
        assert response.form["text"].value.replace("\r", "") == CSV
        assert site.count(Import) == 0

    @pytest.mark.parametrize(
        "content_type", ["text/plain", FORM, "multipart/form-data"]
    )
    def test_types_browsers_send(self, site: Site, content_type: str) -> None:
        """The types that browsers send anywhere need the token."""
        for accept in "text/html", "application/json":
            headers = {"Content-Type": content_type, "Accept": accept}
            site.pages.post("/imports", CSV, headers=headers, status=400)
        assert site.count(Import) == 0

    def test_cookie(self, site: Site) -> None:
        """The token is in a cookie that scripts and other sites do not get."""
        cookie = site.pages.get("/").headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie


class TestRefused:
    """Uploads that are refused."""

    EMPTY = "The upload is empty: choose a file or paste some rows."
    NOT_UTF8 = (
        "The upload is not a text in UTF-8 (byte 15). "
        "Save the table as “CSV UTF-8” and send it again."
    )

    @pytest.fixture
    def site(self, make_site: Callable[..., Site]) -> Site:
        """Return a sample that accepts little."""
        return make_site(**{"sampleapp.max_bytes": "1000"})

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (b"", EMPTY),
            (b" \r\n\n", EMPTY),
            (b"\xef\xbb\xbf", EMPTY),
            ("2024-01-01,Café,1".encode("latin-1"), NOT_UTF8),
            (b"a\0b", "The upload is not a text file: it contains zero bytes."),
            (b"x" * 2000, "The upload is too large: at most 1,000 bytes are accepted."),
        ],
    )
    def test_upload(self, site: Site, data: bytes, error: str) -> None:
        """A program gets the error as JSON, a person the form with it above."""
        assert post_csv(site, data, status=400).json == {"error": error}
        response = submit(site, file=("x.csv", data))
        assert response.status_int == 400
        assert response.html.find(id="error").text == error
        assert response.html.form["action"] == "/imports"
        assert site.count(Import) == 0

    def test_nothing_filled_in(self, site: Site) -> None:
        """An empty form is refused."""
        response = submit(site)
        assert response.status_int == 400
        assert response.html.find(id="error").text == self.EMPTY

    @pytest.mark.parametrize(
        ("charset", "error"),
        [
            *[(f"; charset={name}", "send it as UTF-8") for name in ("utf-16", "none")],
            ("", "The form is not in UTF-8."),
        ],
    )
    def test_other_charset(self, site: Site, charset: str, error: str) -> None:
        """A form in another charset is refused, not stored with marks in it."""
        headers = {"Content-Type": FORM + charset} | JSON
        body = f"csrf_token={site.pages.get('/').form['csrf_token'].value}&text=Caf%e9"
        response = site.pages.post("/imports", body, headers=headers, status=400)
        assert error in response.json["error"]


class TestPrograms:
    """JSON."""

    def test_bare_csv(self, waiting_site: Site) -> None:
        """A bare CSV is answered with 201, the import and its address."""
        response = post_csv(waiting_site, CSV)
        assert response.location == "http://localhost/imports/1"
        record = response.json
        assert sorted(record) == KEYS
        assert record["status"] == "waiting"
        assert record["url"] == response.location
        assert record["rows_total"] is record["notice"] is None
        assert record["totals"] == {}
        assert record["created"].endswith("+00:00")
        later = waiting_site.json(1)
        assert (later["created"], later["notice"]) == (record["created"], None)

    def test_result(self, site: Site) -> None:
        """The import that is done has its totals and the rows that are not."""
        record = site.json(post_csv(site, CSV).json["id"])
        assert sorted(record) == KEYS
        assert (record["status"], record["error"]) == ("done", None)
        counts = [record[key] for key in ("rows_total", "rows_done", "rows_bad")]
        assert counts == [4, 4, 1]
        assert record["totals"] == TOTALS
        reason = "date “2024-05-32” is not in the calendar"
        text = "2024-05-32,Groceries,1.00"
        assert record["bad_rows"] == [{"line": 5, "reason": reason, "text": text}]

    def test_notice(self, site: Site) -> None:
        """The notice of the task has a link to the host that the program used."""
        headers = {"Content-Type": "text/csv", "Host": "expenses.example:8443"}
        environ = {"wsgi.url_scheme": "https"}
        site.pages.post("/imports", CSV, headers=headers, extra_environ=environ)
        link = "https://expenses.example:8443/imports/1"
        notice = f"Your file is imported, 3 of 4 rows: {link}"
        assert site.json(1)["notice"] == notice

    def test_task_id(self, site: Site) -> None:
        """The id of the task is known before it is sent, and is that of the message."""
        with capture(site.registry) as deferred:
            task_id = post_csv(site, CSV).json["task_id"]
        assert deferred.assert_deferred(import_expenses, 1).id == task_id

    def test_what_is_asked_for(self, site: Site) -> None:
        """Who sends a form gets JSON if asking for it, and with a bare CSV the page."""
        form = site.pages.get("/").form
        values = {"csrf_token": form["csrf_token"].value, "text": CSV}
        response = site.pages.post("/imports", values, headers=JSON, status=201)
        assert response.location == response.json["url"]
        headers = {"Content-Type": "text/csv", "Accept": "text/html"}
        site.pages.post("/imports", CSV, headers=headers, status=303)

    def test_page_by_default(self, site: Site) -> None:
        """Who does not ask for JSON gets the page; caches tell them apart."""
        url = f"/imports/{site.add(CSV)}"
        for accept in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
            response = site.pages.get(url, headers={"Accept": accept})
            assert response.content_type == "text/html"
            assert response.vary == ("Accept",)
            assert "no-store" in response.headers["Cache-Control"]

    def test_exact_sums(self, site: Site) -> None:
        """Ten times 0.10 is 1.00; a total may be a few cents below zero."""
        post_csv(site, "2024-01-01,a,0.10\n" * 10)
        assert site.json(1)["totals"] == {"a": "1.00"}
        post_csv(site, "2024-01-01,a,-0.05\n2024-01-01,b,-3\n2024-01-01,b,3")
        assert site.json(2)["totals"] == {"a": "-0.05", "b": "0.00"}


class TestImportPage:
    """The page of an import."""

    def test_waiting(self, waiting_site: Site) -> None:
        """The page says that the import waits, and after a while, for no worker."""
        url = post_csv(waiting_site, CSV).location
        html = waiting_site.pages.get(url).html
        assert html.find(role="status").text == "Waiting for a worker to begin."
        assert "value" not in html.progress.attrs
        assert not html.find_all("table")
        import_id = waiting_site.add(created=now() - timedelta(minutes=1))
        html = waiting_site.pages.get(f"/imports/{import_id}").html
        assert "none is running" in html.find(role="status").text

    def test_running(self, site: Site) -> None:
        """The page shows how far the import is when it is loaded."""
        values = {"rows_total": 2000, "rows_done": 1500, "rows_bad": 3}
        import_id = site.add(status="running", **values)
        html = site.pages.get(f"/imports/{import_id}").html
        assert html.progress["max"] == "2000"
        assert html.progress["value"] == "1500"
        assert html.find(id="count").text == "1,500 of 2,000 rows, 3 unreadable"

    def test_failed(self, site: Site) -> None:
        """The page of a failed import shows why, and no longer follows."""
        values = {"rows_total": 2000, "rows_done": 1500, "error": "Disk <full>"}
        import_id = site.add(status="failed", **values)
        html = site.pages.get(f"/imports/{import_id}").html
        state = html.find(role="status").text
        assert state == "The import failed after 1,500 of 2,000 rows."
        assert html.find(role="alert").text == "Disk <full>"
        assert html.progress is None

    def test_done(self, site: Site) -> None:
        """The page of an import that is done shows its rows that cannot be read."""
        page = site.pages.get(post_csv(site, CSV).location)
        assert "3 of 4 rows imported, 1 could not be read." in page
        row = page.html.find(class_="bad").tbody.tr
        reason = "date “2024-05-32” is not in the calendar"
        cells = [cell.text for cell in row.find_all(["th", "td"])]
        assert cells == ["5", f"{reason} 2024-05-32,Groceries,1.00"]
        assert page.html.progress is None
        link = page.html.find(class_="notice").a
        assert link["href"] == link.text == "http://localhost/imports/1"

    def test_many_bad_rows(self, site: Site) -> None:
        """Of unreadable rows the first are shown, not all are kept, all are counted."""
        page = site.pages.get(post_csv(site, "x\n" * 1700).location)
        assert "The first 200 of 1,700." in page
        assert len(page.html.find(class_="bad").tbody.find_all("tr")) == 200
        record = site.json(1)
        assert (len(record["bad_rows"]), record["rows_bad"]) == (200, 1700)
        assert site.count(BadRow) == 1000

    def test_many_categories(self, site: Site) -> None:
        """Totals come in pages, with the sum of all below each."""
        lines = (f"2024-05-01,c{number:03},1.00" for number in range(250))
        first = site.pages.get(post_csv(site, "\n".join(lines)).location)
        second = first.click("Next")
        assert "Page 2 of 2" in second
        for page, expected in (first, 201), (second, 51):
            cells = page.html.find(class_="totals").find_all("td")
            assert (len(cells), cells[-1].text) == (expected, "250.00")
        rest = site.pages.get(site.json(1)["more_totals"], headers=JSON).json
        assert next(iter(rest["totals"])) == "c200"
        assert rest["more_totals"] is None

    @pytest.mark.parametrize(("seconds", "stalled"), [(20, False), (40, True)])
    def test_stalled(self, site: Site, seconds: int, stalled: bool) -> None:  # noqa: FBT001
        """An import whose worker is gone says so, and what to do."""
        progressed = now() - timedelta(seconds=seconds)
        import_id = site.add(status="running", progressed=progressed)
        page = site.pages.get(f"/imports/{import_id}")
        assert ("Start a worker." in page) == stalled
        assert site.json(import_id)["stalled"] == stalled

    @pytest.mark.parametrize("path", ["/%ff", "/imports/1?page=%ff"])
    def test_address_that_is_not_text(self, site: Site, path: str) -> None:
        """An address that is not UTF-8 is an error of who asks."""
        site.add()
        assert "UTF-8" in site.pages.get(path, status=400)

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            *[("/", 200), ("/nothing", 404), ("/%ff", 400), ("/static/sample.js", 200)],
            *[("/static/sample.css", 200), ("/static/icon.svg", 200)],
        ],
    )
    def test_security_headers(self, site: Site, path: str, status: int) -> None:
        """Each answer, also that of a file, tells browsers what pages do not need."""
        response = site.pages.get(path, status=status)
        assert response.body
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_escaping(self, site: Site) -> None:
        """Nothing in a file becomes part of the page."""
        evil = "<script>alert(1)</script>"
        name = f"{evil}.csv".replace("/", "")
        data = f"2024-01-01,{evil},1\n{evil},x,1\n".encode()
        page = submit(site, file=(name, data)).follow()
        assert evil not in page.text
        assert "&lt;script&gt;alert(1)" in page.text

    @pytest.mark.parametrize("path", ["/", "/imports/1"])
    def test_no_inline_script(self, waiting_site: Site, path: str) -> None:
        """Scripts are files of the application."""
        post_csv(waiting_site, CSV)
        scripts = waiting_site.pages.get(path).html.find_all("script")
        assert [script["src"] for script in scripts] == ["/static/sample.js"]
        assert not any(script.text for script in scripts)

    @pytest.mark.parametrize("path", ["/imports/1", f"/imports/{'9' * 30}", "/nothing"])
    def test_not_found(self, site: Site, path: str) -> None:
        """What does not exist is answered with 404, as a page or as JSON."""
        page = site.pages.get(path, status=404)
        assert page.html.h1.text == "Not found"
        response = site.pages.get(path, headers=JSON, status=404)
        assert response.json == {"error": "Not found"}


class TestSending:
    """The task is sent when the import can be seen, and not otherwise."""

    @pytest.mark.parametrize(
        ("end", "status"), [("commit", "done"), ("abort", "waiting")]
    )
    def test_with_the_transaction(self, site: Site, end: str, status: str) -> None:
        """A committed transaction sends its task; an aborted one does not."""
        import_id = site.add(CSV)
        with site.request() as request:
            request.tm.begin()
            request.defer_task(import_expenses, import_id)
            assert site.get(import_id).status == "waiting"
            getattr(request.tm, end)()
        assert site.get(import_id).status == status

    def test_broker_away(self, make_site: Callable[..., Site]) -> None:
        """Without a broker nothing is stored, and the form keeps what was typed."""
        with socket.socket() as sock:
            # Bound but not listening: connections are refused.
            sock.bind(("127.0.0.1", 0))
            broker = f"amqp://127.0.0.1:{sock.getsockname()[1]}"
            settings = {"task_always_eager": "false", "broker_url": broker}
            site = make_site(**{f"celery.{key}": settings[key] for key in settings})
            answer = post_csv(site, CSV, status=503)
            page = submit(site, CSV)
        assert "not possible at the moment" in answer.json["error"]
        assert page.status_int == 503
        assert page.forms[0]["text"].value.strip() == CSV.strip()
        assert site.count(Import) == 0

    def test_rows_belong_to_their_import(self, site: Site) -> None:
        """Two imports do not mix."""
        post_csv(site, CSV)
        post_csv(site, "2024-01-01,Rent,1\nx")
        assert site.json(1)["totals"] == TOTALS
        assert site.json(2)["totals"] == {"Rent": "1.00"}
        assert (site.count(Expense), site.count(BadRow)) == (4, 2)
