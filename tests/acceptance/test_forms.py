"""Every form of the command line that names an application and its configuration."""

import shlex

import celery.bin.base
import pytest
from support import QUICK, filesystem_settings, run, start

pytestmark = pytest.mark.acceptance

#: As in the documentation; the configuration is config.ini in the current folder.
FORMS = {
    "main form": "celery -A pyramid_tasks.loaders --ini config.ini worker",
    "attribute named": "celery -A pyramid_tasks.loaders:app --ini config.ini worker",
    "short": "celery -A pyramid_tasks --ini config.ini worker",
    "without -A": "celery --ini config.ini worker",
    "-A last": "celery --ini config.ini -A pyramid_tasks.loaders worker",
    "after the sub-command": "celery -A pyramid_tasks.loaders worker --ini config.ini",
    "after, without -A": "celery worker --ini config.ini",
    "after, -A short": "celery -A pyramid_tasks worker --ini=config.ini",
    "from the environment": "celery -A pyramid_tasks.loaders worker",
    "from the environment, -A short": "celery -A pyramid_tasks worker",
}

WORKER = "worker_pool = threads\nworker_concurrency = 3"


def start_typed(line, cwd, **env):
    """Return a worker started by a line of shell, as a context manager."""
    return start(*shlex.split(line), "--loglevel=INFO", *QUICK, cwd=cwd, **env)


@pytest.mark.parametrize("name", FORMS)
def test_form_starts_worker_of_application(name, write_example, tmp_path):
    """A worker started so has the application's tasks, broker, pool and processes."""
    write_example(worker=WORKER)
    env = {"CELERY_INI": "config.ini"} if "environment" in name else {}
    with start_typed(FORMS[name], tmp_path, **env) as worker:
        worker.wait_for(" ready.")
        assert ". exampleapp.add\n" in worker.output
        assert ".> app:         exampleapp:0x" in worker.output
        assert ".> transport:   filesystem://" in worker.output
        assert ".> concurrency: 3 (thread)" in worker.output


def test_project_of_its_own(tmp_path):
    """``celery -A myproject`` takes the app of ``config.make_celery_app()``.

    ``CELERY_INI`` is for ``-A pyramid_tasks.loaders``: it is not loaded.
    """
    settings = {f"celery.{k}": v for k, v in filesystem_settings(tmp_path).items()}
    settings |= {"celery.worker_pool": "threads", "celery.worker_concurrency": "3"}
    project = tmp_path / "myproject"
    project.mkdir()
    (project / "__init__.py").touch()
    (project / "celery.py").write_text(
        "from exampleapp import configure\n\n"
        f"config = configure({settings!r})\n"
        "app = config.make_celery_app()\n"
    )
    line, env = "celery -A myproject worker", {"CELERY_INI": "missing.ini"}
    with start_typed(line, tmp_path, **env) as worker:
        worker.wait_for(" ready.")
        assert ". exampleapp.add\n" in worker.output
        assert ".> concurrency: 3 (thread)" in worker.output


def test_ini_that_nobody_reads(report, tmp_path):
    """The application of a project would work on a broker that is not the ini's."""
    (tmp_path / "project.py").write_text("import celery\napp = celery.Celery()\n")
    reader = (
        "import os\nfrom pyramid_tasks.loaders import get_celery_app\n"
        "app = get_celery_app(os.environ['CELERY_INI'])\n"
    )
    (tmp_path / "reader.py").write_text(reader)
    for line in "-A project --ini config.ini", "--ini config.ini -A project":
        said = report(f"celery {line} report", status=2)
        assert "Write -A pyramid_tasks.loaders, or leave out --ini." in said
    assert "concurrency: 3\n" in report("celery -A reader --ini config.ini report")
    report("celery -A project report", CELERY_INI="config.ini")


VARIABLES = """
[celery:my]
worker_pool = %(pool)s
worker_concurrency = %(concurrency)s

[celery:emails]
use = main
worker_concurrency = 5
"""

ON_LOADERS = "celery -A pyramid_tasks.loaders "

#: Lines that print settings, by what they print of them.
REPORTS = {
    "threads 3": ["report --ini config.ini", "--ini config.ini#main report"],
    "threads 5": [
        "--ini config.ini#emails report",
        "report --ini config.ini#emails",
        "--ini file+ini:config.ini#emails report",
    ],
    "solo 7": [
        # Variables in the URI.
        "--ini config.ini?pool=solo&concurrency=7#my report",
        "report --ini config.ini?pool=solo&concurrency=7#my",
        # Variables as options: before and after --ini and the sub-command.
        "--ini config.ini#my --ini-var pool=solo --ini-var concurrency=7 report",
        "--ini-var pool=solo --ini-var concurrency=7 --ini config.ini#my report",
        "--ini-var pool=solo --ini config.ini#my --ini-var concurrency=7 report",
        "report --ini config.ini#my --ini-var pool=solo --ini-var concurrency=7",
        "report --ini-var pool=solo --ini-var concurrency=7 --ini config.ini#my",
        "--ini-var pool=solo report --ini config.ini#my --ini-var concurrency=7",
        # An option wins over the URI, and the place nearer to the command wins.
        "--ini-var pool=solo --ini config.ini?pool=x&concurrency=7#my report",
        "--ini-var pool=x report --ini-var pool=solo --ini config.ini?concurrency=7#my",
    ],
}


@pytest.fixture
def report(write_example, tmp_path):
    """Return a function that runs ``celery`` with an ini of some sections."""
    write_example(worker=WORKER, more=VARIABLES)

    def report(line, status=0, cwd=tmp_path, **env):
        done = run(*shlex.split(line), cwd=cwd, **env)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    return report


@pytest.mark.parametrize(
    ("expected", "line"),
    [(expected, line) for expected, lines in REPORTS.items() for line in lines],
)
def test_section_and_variables(expected, line, report):
    """``#name``, ``?key=value`` and ``--ini-var`` mean the same in every position."""
    pool, concurrency = expected.split()
    shown = report(ON_LOADERS + line)
    assert f"worker_pool: {pool!r}\n" in shown
    assert f"worker_concurrency: {concurrency}\n" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # Before the sub-command, --ini has decided; a second one is not ignored.
        ("--ini config.ini report --ini config.ini#emails", "No such option"),
        ("--ini config.ini --ini-var pool report", "'pool' is not NAME=VALUE."),
        ("report --ini config.ini --ini-var pool", "'pool' is not NAME=VALUE."),
    ],
)
def test_wrong_usage(line, said, report):
    """A second ``--ini``, and a variable without a value, are usage errors."""
    assert said in report(ON_LOADERS + line, status=2)


def test_variable_with_an_equals_sign(write_example, report):
    """The first equals sign ends the name."""
    write_example(worker="worker_state_db = %(db)s")
    shown = report(ON_LOADERS + "--ini-var db=a=b --ini config.ini report")
    assert "worker_state_db: 'a=b'\n" in shown


@pytest.mark.parametrize("line", ["--ini config.ini report", "report --ini config.ini"])
def test_option_wins_over_environment(line, write_example, report):
    """``--ini`` on the command line wins over ``CELERY_INI``."""
    write_example(name="other.ini", worker="worker_concurrency = 9")
    shown = report(ON_LOADERS + line, CELERY_INI="other.ini")
    assert "worker_concurrency: 3\n" in shown


def test_variable_is_for_ini_of_environment_too(report):
    """``--ini-var`` sets variables of the file that ``CELERY_INI`` names."""
    variables = "--ini-var pool=solo --ini-var concurrency=7"
    for line in f"{variables} report", f"report {variables}":
        shown = report(ON_LOADERS + line, CELERY_INI="config.ini#my")
        assert "worker_concurrency: 7\n" in shown


def test_ini_without_celery_section(write_ini, report):
    """Without ``[celery:NAME]``, the application's own settings are all there is."""
    write_ini(
        "[app:main]\nuse = call:exampleapp:main\n"
        "celery.broker_url = memory://\ncelery.worker_concurrency = 4\n"
    )
    shown = report(ON_LOADERS + "--ini config.ini report")
    assert "worker_concurrency: 4\n" in shown


def test_ini_is_relative_to_workdir(report, tmp_path):
    """Celery's ``--workdir`` is entered before ``--ini`` is looked for."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    line = f"celery --workdir {tmp_path} -A pyramid_tasks --ini config.ini report"
    assert "worker_concurrency: 3\n" in report(line, cwd=elsewhere)


@pytest.mark.skipif(
    not hasattr(celery.bin.base, "DaemonOption"),
    reason="this Celery takes the options of a daemon from the command line only",
)
@pytest.mark.parametrize("name", ["main form", "after the sub-command"])
def test_daemon_options_from_ini(name, write_example, tmp_path):
    """``worker_logfile`` and ``worker_pidfile`` are read from the ini."""
    log, pid = tmp_path / "my-worker.log", tmp_path / "my-worker.pid"
    write_example(
        worker=f"{WORKER}\nworker_logfile = %(here)s/{log.name}\n"
        f"worker_pidfile = %(here)s/{pid.name}"
    )
    with start_typed(FORMS[name], tmp_path) as worker:
        worker.wait_until(lambda: log.exists() and " ready." in log.read_text())
        assert pid.read_text().strip() == str(worker.popen.pid)
        assert worker.stop() == 0
    assert not pid.exists()
