"""Every form of the command line that names an application and its configuration."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import celery.bin.base
import pytest
from support import QUICK, Process, filesystem_settings, run, start

pytestmark = pytest.mark.acceptance

#: As in the documentation; the configuration is config.ini in the current folder.
FORMS = {
    "main form": "celery -A pyramid_tasks.loaders --ini config.ini worker",
    "attribute named": "celery -A pyramid_tasks.loaders:app --ini config.ini worker",
    "short": "celery -A pyramid_tasks --ini config.ini worker",
    "without -A": "celery --ini config.ini worker",
    "-A last": "celery --ini config.ini -A pyramid_tasks.loaders worker",
    "after the sub-command": "celery -A pyramid_tasks.loaders worker --ini config.ini",
    "after, -A short": "celery -A pyramid_tasks worker --ini=config.ini",
    "from the environment": "celery -A pyramid_tasks.loaders worker",
    "from the environment, -A short": "celery -A pyramid_tasks worker",
}

WORKER = "worker_pool = threads\nworker_concurrency = 3"


def start_typed(line: str, tmp_path: Path, **env: str) -> Process:
    """Return a worker started by a line of shell, as a context manager."""
    options = ("--loglevel=INFO", *QUICK)
    return start(*shlex.split(line), *options, cwd=tmp_path, **env)


def environ_of(name: str) -> dict[str, str]:
    return {"CELERY_INI": "config.ini"} if "environment" in name else {}


@pytest.mark.parametrize("name", FORMS)
def test_form_starts_worker_of_application(
    name: str, write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """A worker started so has the application's tasks, broker, pool and processes."""
    write_example(worker=WORKER)
    with start_typed(FORMS[name], tmp_path, **environ_of(name)) as worker:
        worker.wait_for(" ready.")
        assert ". exampleapp.add\n" in worker.output
        assert ".> app:         exampleapp:0x" in worker.output
        assert ".> transport:   filesystem://" in worker.output
        assert ".> concurrency: 3 (thread)" in worker.output


def test_worker_of_make_celery_app_needs_no_ini(tmp_path: Path) -> None:
    """``celery -A myproject`` takes the app of ``config.make_celery_app()``."""
    settings = {
        **{f"celery.{k}": value for k, value in filesystem_settings(tmp_path).items()},
        "celery.worker_pool": "threads",
        "celery.worker_concurrency": "3",
    }
    write_project(tmp_path, settings)
    with start_typed("celery -A myproject worker", tmp_path) as worker:
        worker.wait_for(" ready.")
        assert ". exampleapp.add\n" in worker.output
        assert ".> concurrency: 3 (thread)" in worker.output


def test_project_of_its_own_ignores_celery_ini(tmp_path: Path) -> None:
    """``CELERY_INI`` is for ``-A pyramid_tasks.loaders``; other apps do not load it."""
    settings = {"celery.broker_url": "memory://", "celery.worker_pool": "solo"}
    write_project(tmp_path, settings)
    command = ("celery", "-A", "myproject", "report")
    report = run(*command, cwd=tmp_path, CELERY_INI="missing.ini")
    assert report.returncode == 0, report.stderr
    assert "worker_pool: 'solo'" in report.stdout


def write_project(folder: Path, settings: dict[str, str]) -> None:
    project = folder / "myproject"
    project.mkdir()
    (project / "__init__.py").touch()
    (project / "celery.py").write_text(
        "from exampleapp import configure\n\n"
        f"config = configure({settings!r})\n"
        "app = config.make_celery_app()\n"
    )


VARIABLES = """
[celery:variables]
worker_pool = %(pool)s
worker_concurrency = %(concurrency)s

[celery:emails]
use = main
worker_concurrency = 5
"""

ON_LOADERS = "celery -A pyramid_tasks.loaders "

#: A line that prints settings, and what it prints of them.
REPORTS = {
    # The section.
    "report --ini config.ini": "threads 3",
    "--ini config.ini#main report": "threads 3",
    "--ini config.ini#emails report": "threads 5",
    "report --ini config.ini#emails": "threads 5",
    "--ini file+ini:config.ini#emails report": "threads 5",
    # Variables in the URI.
    "--ini config.ini?pool=solo&concurrency=7#variables report": "solo 7",
    "report --ini config.ini?pool=solo&concurrency=7#variables": "solo 7",
    # Variables as options: before and after --ini and the sub-command.
    "--ini config.ini#variables --ini-var pool=solo --ini-var concurrency=7 report": (
        "solo 7"
    ),
    "--ini-var pool=solo --ini-var concurrency=7 --ini config.ini#variables report": (
        "solo 7"
    ),
    "--ini-var pool=solo --ini config.ini#variables --ini-var concurrency=7 report": (
        "solo 7"
    ),
    "report --ini config.ini#variables --ini-var pool=solo --ini-var concurrency=7": (
        "solo 7"
    ),
    "report --ini-var pool=solo --ini-var concurrency=7 --ini config.ini#variables": (
        "solo 7"
    ),
    "--ini-var pool=solo report --ini config.ini#variables --ini-var concurrency=7": (
        "solo 7"
    ),
    # An option wins over the URI, and the place nearer to the command wins.
    "--ini-var pool=solo --ini config.ini?pool=x&concurrency=7#variables report": (
        "solo 7"
    ),
    "--ini-var pool=x report --ini-var pool=solo --ini "
    "config.ini?concurrency=7#variables": "solo 7",
    "--ini config.ini report --ini config.ini#emails": None,
}


@pytest.mark.parametrize("line", REPORTS)
def test_section_and_variables(
    line: str, write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """``#name``, ``?key=value`` and ``--ini-var`` mean the same in every position."""
    write_example(worker=WORKER, more=VARIABLES)
    report = run(*shlex.split(ON_LOADERS + line), cwd=tmp_path)
    expected = REPORTS[line]
    if expected is None:
        # Before the sub-command, --ini has decided; a second one is not ignored.
        assert report.returncode == 2
        assert "No such option" in report.stderr
        return
    pool, concurrency = expected.split()
    assert report.returncode == 0, report.stderr
    assert f"worker_pool: {pool!r}\n" in report.stdout
    assert f"worker_concurrency: {concurrency}\n" in report.stdout


def test_variable_with_an_equals_sign(
    write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """The first equals sign ends the name."""
    write_example(worker="worker_state_db = %(db)s")
    line = "--ini-var db=a=b --ini config.ini report"
    report = run(*shlex.split(ON_LOADERS + line), cwd=tmp_path)
    assert "worker_state_db: 'a=b'\n" in report.stdout


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_option_wins_over_environment(
    write_example: Callable[..., Path], tmp_path: Path, *, after: bool
) -> None:
    """``--ini`` on the command line wins over ``CELERY_INI``."""
    write_example(worker=WORKER)
    write_example(name="other.ini", worker="worker_concurrency = 9")
    line = "report --ini config.ini" if after else "--ini config.ini report"
    command = shlex.split(ON_LOADERS + line)
    report = run(*command, cwd=tmp_path, CELERY_INI="other.ini")
    assert report.returncode == 0, report.stderr
    assert "worker_concurrency: 3\n" in report.stdout


def test_variable_is_for_ini_of_environment_too(
    write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """``--ini-var`` sets variables of the file that ``CELERY_INI`` names."""
    write_example(more=VARIABLES)
    for line in (
        "--ini-var pool=solo --ini-var concurrency=7 report",
        "report --ini-var pool=solo --ini-var concurrency=7",
    ):
        command = shlex.split(ON_LOADERS + line)
        report = run(*command, cwd=tmp_path, CELERY_INI="config.ini#variables")
        assert report.returncode == 0, report.stderr
        assert "worker_concurrency: 7\n" in report.stdout


@pytest.mark.parametrize(
    "line",
    [
        "--ini config.ini --ini-var pool report",
        "report --ini config.ini --ini-var pool",
    ],
)
def test_variable_needs_value(
    line: str, write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """``--ini-var`` without an equals sign is a usage error."""
    write_example()
    report = run(*shlex.split(ON_LOADERS + line), cwd=tmp_path)
    assert report.returncode == 2
    assert "'pool' is not NAME=VALUE." in report.stderr
    assert "Traceback" not in report.stderr


def test_ini_without_celery_section(
    write_ini: Callable[..., Path], tmp_path: Path
) -> None:
    """Without ``[celery:NAME]``, the application's own settings are all there is."""
    write_ini(
        "[app:main]\nuse = call:exampleapp:main\n"
        "celery.broker_url = memory://\ncelery.worker_concurrency = 4\n"
    )
    command = shlex.split(ON_LOADERS + "--ini config.ini report")
    report = run(*command, cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert "worker_concurrency: 4\n" in report.stdout


def test_ini_is_relative_to_workdir(
    write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """Celery's ``--workdir`` is entered before ``--ini`` is looked for."""
    write_example(worker=WORKER)
    (tmp_path / "elsewhere").mkdir()
    command = ("celery", "--workdir", tmp_path, "-A", "pyramid_tasks.loaders")
    report = run(*command, "--ini", "config.ini", "report", cwd=tmp_path / "elsewhere")
    assert report.returncode == 0, report.stderr
    assert "worker_concurrency: 3\n" in report.stdout


def test_shell_of_celery_has_the_application(
    write_example: Callable[..., Path], tmp_path: Path
) -> None:
    """A line typed at ``celery shell`` reaches the application and its tasks."""
    write_example(worker=WORKER)
    command = shlex.split(ON_LOADERS + "--ini config.ini shell --python")
    stdin = "print('pool', app.conf.worker_pool, add.name, app.current_task)\n"
    shell = run(*command, cwd=tmp_path, stdin=stdin)
    assert shell.returncode == 0, shell.stderr
    assert "pool threads exampleapp.add None" in shell.stdout


@pytest.mark.skipif(
    not hasattr(celery.bin.base, "DaemonOption"),
    reason="this Celery takes the options of a daemon from the command line only",
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_daemon_options_from_ini(
    write_example: Callable[..., Path], tmp_path: Path, *, after: bool
) -> None:
    """``worker_logfile`` and ``worker_pidfile`` are read from the ini."""
    log, pid = tmp_path / "my-worker.log", tmp_path / "my-worker.pid"
    write_example(
        worker=f"{WORKER}\nworker_logfile = %(here)s/{log.name}\n"
        f"worker_pidfile = %(here)s/{pid.name}"
    )
    name = "after the sub-command" if after else "main form"
    with start_typed(FORMS[name], tmp_path) as worker:
        worker.wait_until(lambda: log.exists() and " ready." in log.read_text())
        assert pid.read_text().strip() == str(worker.popen.pid)
        assert worker.stop() == 0
    assert not pid.exists()
