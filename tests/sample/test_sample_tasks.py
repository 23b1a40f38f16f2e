"""The tasks of the sample."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from documents import ROOT
from sampleapp import tasks
from sampleapp.db import ENGINE, create_tables, make_engine
from sampleapp.models import BadRow, Expense, Import, now
from sampleapp.tasks import describe_error, import_expenses, remove_old_imports
from sqlalchemy import inspect, text, update
from transaction.interfaces import NoTransaction

from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.worker.forking import leave_to_parent

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site

OnPause = Callable[[Any], None]

CSV = """\
2024-05-01,Rent,950
2024-05-02,Groceries,42.10
x
2024-05-03,Rent,1

2024-05-03,Rent,2
"""
TOTALS = {"Groceries": "42.10", "Rent": "953.00"}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files of these tests have three chunks."""
    monkeypatch.setattr(tasks, "CHUNK", 2)


@pytest.fixture
def on_pause(monkeypatch: pytest.MonkeyPatch) -> OnPause:
    """Return a function that has another one called after each chunk."""

    def install(function: Callable[[], None]) -> None:
        monkeypatch.setattr(tasks.time, "sleep", lambda _seconds: function())

    return install


@pytest.mark.usefixtures("small_chunks")
class TestImport:
    """Importing a file."""

    def test_result(self, site: Site) -> None:
        """The result counts the rows, and no connection is in use after the task."""
        result = site.run(import_expenses, site.add(CSV))
        assert result.get() == {"rows": 5, "bad": 1}
        assert site.registry[ENGINE].pool.checkedout() == 0

    def test_progress_is_committed(self, site: Site, on_pause: OnPause) -> None:
        """Others see how far an import is, and its rows, chunk by chunk."""
        seen = []

        def look() -> None:
            found = site.get(import_id)
            expenses = site.count(Expense)
            seen.append((found.status, found.rows_total, found.rows_done, expenses))

        on_pause(look)
        import_id = site.add(CSV)
        site.run(import_expenses, import_id).get()
        assert seen == [("running", 5, *each) for each in [(2, 2), (4, 3), (5, 4)]]
        assert site.get(import_id).status == "done"

    def test_pause(
        self, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The task rests after each chunk for as long as the setting says."""
        pauses: list[float] = []
        monkeypatch.setattr(tasks.time, "sleep", pauses.append)
        site = make_site(**{"sampleapp.seconds_per_chunk": "0.25"})
        site.run(import_expenses, site.add(CSV)).get()
        assert pauses == [0.25, 0.25, 0.25]

    def test_delivered_again_when_done(self, site: Site) -> None:
        """A second delivery of a task that is done changes nothing."""
        import_id = site.add(CSV)
        site.run(import_expenses, import_id).get()
        before = site.json(import_id)
        assert site.run(import_expenses, import_id).get() is None
        assert site.json(import_id) == before
        assert site.get(import_id).attempt == 1

    @pytest.mark.parametrize("status", ["running", "failed"])
    def test_delivered_again_when_half_done(self, site: Site, status: str) -> None:
        """A second delivery starts over; the rows of the first are not kept."""
        values = {"attempt": 1, "rows_done": 2, "rows_bad": 1, "error": "Oh"}
        import_id = site.add(CSV, status=status, **values)
        expense = {"day": now().date(), "category": "a", "cents": 1}
        with site.session() as session:
            session.add(Expense(import_id=import_id, line=1, **expense))
            session.add(BadRow(import_id=import_id, line=2, reason="b", text="c"))
        site.run(import_expenses, import_id).get()
        found = site.json(import_id)
        assert (found["status"], found["error"]) == ("done", None)
        assert found["totals"] == TOTALS
        assert [row["line"] for row in found["bad_rows"]] == [3]

    def test_overtaken(self, site: Site, on_pause: OnPause) -> None:
        """An attempt stops when a later one has begun, and leaves that one alone."""
        import_id = site.add(CSV)

        def begin_again() -> None:
            on_pause(lambda: None)
            assert site.run(import_expenses, import_id).state == "SUCCESS"

        on_pause(begin_again)
        assert site.run(import_expenses, import_id).get() is None
        found = site.json(import_id)
        assert (found["status"], found["rows_done"]) == ("done", 5)
        assert found["totals"] == TOTALS
        assert site.get(import_id).attempt == 2

    def test_failing_after_overtaken(self, site: Site, on_pause: OnPause) -> None:
        """An attempt that fails does not spoil the later one."""
        import_id = site.add(CSV)

        def fail() -> None:
            with site.session() as session:
                session.execute(update(Import).values(attempt=7))
            raise RuntimeError

        on_pause(fail)
        result = site.run(import_expenses, import_id)
        assert isinstance(result.result, RuntimeError)
        assert site.get(import_id).status == "running"

    def test_error(self, site: Site, on_pause: OnPause) -> None:
        """An error makes the import failed, and is Celery's result as well."""

        def fail() -> None:
            raise OSError("The disk is full\nwith secrets")

        on_pause(fail)
        import_id = site.add(CSV)
        result = site.run(import_expenses, import_id)
        assert result.state == "FAILURE"
        assert isinstance(result.result, OSError)
        found = site.json(import_id)
        assert (found["status"], found["rows_done"]) == ("failed", 2)
        assert found["error"] == "OSError: The disk is full"

    def test_error_of_the_database(self, site: Site) -> None:
        """An error in the middle of a transaction can still be recorded."""
        import_id = site.add(CSV)
        with site.session() as session:
            session.execute(text("ALTER TABLE expense RENAME TO expense2"))
            session.execute(text("CREATE TABLE expense (import_id INTEGER)"))
        result = site.run(import_expenses, import_id)
        assert result.state == "FAILURE"
        found = site.get(import_id)
        assert (found.status, found.rows_done) == ("failed", 0)
        assert "no column named" in (found.error or "")

    def test_removed(self, site: Site, on_pause: OnPause) -> None:
        """The task stops when its import is removed; afterwards it does nothing."""

        def remove() -> None:
            with site.session() as session:
                session.delete(session.get_one(Import, import_id))

        on_pause(remove)
        import_id = site.add(CSV)
        for _ in "meanwhile", "afterwards":
            assert site.run(import_expenses, import_id).get() is None
            assert site.count(Expense) == 0

    def test_no_rows(self, site: Site) -> None:
        """A file with nothing but a header is done at once."""
        site.run(import_expenses, site.add("date,category,amount\n")).get()
        found = site.get(1)
        assert (found.status, found.rows_total) == ("done", 0)


class TestRemoval:
    """Removing old imports."""

    @pytest.mark.parametrize(("days", "left"), [(None, 2), ("10", 1), ("100", 3)])
    def test_age(
        self, make_site: Callable[..., Site], days: str | None, left: int
    ) -> None:
        """Imports older than the setting, or 30 days, are removed, and no others."""
        site = make_site(**({"sampleapp.keep_days": days} if days else {}))
        for age in (0, 29, 31):
            site.add(created=now() - timedelta(days=age), task_id=str(age))
        assert site.run(remove_old_imports).get() == 3 - left
        assert site.count(Import) == left

    def test_rows_go_too(self, site: Site) -> None:
        """The rows of an import go with it."""
        import_id = site.add(CSV, created=now() - timedelta(days=31))
        site.run(import_expenses, import_id).get()
        site.run(remove_old_imports).get()
        assert site.count(Expense) == site.count(BadRow) == 0

    def test_schedule(self, tmp_path: Path) -> None:
        """Celery beat removes old imports every night."""
        ini = shutil.copy(ROOT / "sample" / "development.ini", tmp_path)
        app = get_celery_app(str(ini))
        (entry,) = app.conf.beat_schedule.values()
        assert entry["task"] == "sampleapp.tasks.remove_old_imports"
        assert str(entry["schedule"]).startswith("<crontab: 0 3")


class TestDatabase:
    """The connection to the database."""

    @pytest.mark.parametrize("turn", range(20))
    def test_tables_at_start(self, tmp_path: Path, turn: int) -> None:
        """Processes that start together make the tables together, time and again."""
        settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/{turn}.sqlite"}
        barrier = Barrier(6)

        def start(_: int) -> None:
            engine = make_engine(settings)
            barrier.wait()
            create_tables(engine)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(start, range(6)))
        engine = make_engine(settings)
        outbox = {
            f"pyramid_tasks_{name}" for name in ("outbox", "outbox_relay", "inbox")
        }
        tables = {"import", "expense", "bad_row", "notice"} | outbox
        assert set(inspect(engine).get_table_names()) == tables
        engine.dispose()

    @pytest.mark.parametrize(
        ("pragma", "value"),
        [("journal_mode", "wal"), ("busy_timeout", 30000), ("foreign_keys", 1)],
    )
    def test_sqlite(self, site: Site, pragma: str, value: object) -> None:
        """SQLite lets two processes write, and keeps what belongs together."""
        with site.session() as session:
            assert session.scalar(text(f"PRAGMA {pragma}")) == value

    def test_worker_process(self, site: Site) -> None:
        """A new worker process does not use the connections of its parent."""
        engine = site.registry[ENGINE]
        with engine.connect():
            pass
        pool = engine.pool
        assert pool.checkedin() == 1
        leave_to_parent(site.registry)
        assert engine.pool is not pool
        assert engine.pool.checkedin() == 0
        # Not closed: the parent may be using it.
        assert pool.checkedin() == 1

    def test_outside_a_transaction(self, site: Site) -> None:
        """The session of a request is of no use outside a transaction."""
        with site.request() as request, pytest.raises(NoTransaction):
            request.dbsession.query(Import).count()

    def test_folders(self, make_site: Callable[..., Site], tmp_path: Path) -> None:
        """The folders of the settings are made, and may be there already."""
        folders = f"{tmp_path}/a/b {tmp_path}/c"
        for _ in range(2):
            make_site(**{"sampleapp.folders": folders})
            assert (tmp_path / "a" / "b").is_dir()
            assert (tmp_path / "c").is_dir()


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (ValueError("No\nmore"), "ValueError: No"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 288),
    ],
)
def test_describe_error(error: Exception, description: str) -> None:
    """An error is told in a line."""
    assert describe_error(error) == description
