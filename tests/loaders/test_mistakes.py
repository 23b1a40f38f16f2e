"""Mistakes in an ini: the check and the worker tell each in the same sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plaster
import pytest
from celery import beat
from celery.schedules import BaseSchedule
from pyramid.exceptions import ConfigurationExecutionError

from pyramid_tasks.exceptions import LoadError, SettingError, UnknownSetting
from pyramid_tasks.loaders.opening import open_app
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.scripts.problems import find_problems

SECRET = "s3cr3t"
APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
celery.result_backend = cache+memory://
"""
IT = APP.replace("[app:main]", "[app:it]")
LOGGING = f"""{APP}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic
[formatter_generic]
format = %(message)s
"""

Told = Callable[..., list[str]]


@pytest.fixture
def told(write_ini: Callable[..., Path]) -> Told:
    """Return a function that checks an ini, and loads it as a worker does.

    The function returns what the check tells, without the path of the file, if the
    worker ends with the first of these sentences.
    """

    def told(text: str, **variables: str) -> list[str]:
        ini = str(write_ini(text))
        found = [
            ": ".join(filter(None, (problem["where"], problem["message"])))
            for problem in find_problems(ini, variables)
        ]
        with pytest.raises((LoadError, SettingError)) as caught:
            open_app(ini, variables=variables)
        assert str(caught.value) in found
        return [sentence.removeprefix(ini) for sentence in found]

    return told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{APP}[celery:broker_transport_options]\nvisibility_timeout = 18000",
            ", [celery:broker_transport_options]: broker_transport_options is a set",
        ),
        (
            f"{APP}[broker_transport_options]\nvisibility_timeout = 18000",
            ", [broker_transport_options]: broker_transport_options is a setting, and",
        ),
        (
            f"{APP}[celery:options]\nvisibility_timeout = 18000",
            ", [celery:options]: none of its keys is a setting of Celery",
        ),
        (
            f"{APP}[celeryroute:exampleapp.add]\nque = slow",
            (
                ", [celeryroute:exampleapp.add]: que is not an option of a route. Did "
                "you mean queue?"
            ),
        ),
        (
            f"{APP}[celeryroute:exampleapp.add]\npriority = high",
            ", [celeryroute:exampleapp.add]: priority = high is not a whole number.",
        ),
        (
            (
                f"{APP}[celerybeat:x]\ntask = exampleapp.now\nschedule = 5\n"
                'options = {"countdwn": 3}'
            ),
            ", [celerybeat:x]: options has countdwn. Did you mean countdown?",
        ),
        (
            f"{APP}pyramid.includes =\n  pyramid_tm\n  pyramid_tsk",
            (
                ", [app:main], pyramid.includes: there is no module pyramid_tsk. Did "
                "you mean pyramid_tasks?"
            ),
        ),
        (
            APP.replace("call:exampleapp:main", "egg:nosuchdist"),
            (
                ", [app:main], use = egg:nosuchdist: no distribution nosuchdist is "
                "installed."
            ),
        ),
        (
            APP.replace("exampleapp", "nosuchmod"),
            ", [app:main], use = call:nosuchmod:main: No module named 'nosuchmod'.",
        ),
        (
            APP.replace(":main\n", ":mian\n"),
            ", [app:main], use = call:exampleapp:mian: module 'exampleapp' has no ",
        ),
        (
            f"{IT}[pipeline:main]\npipeline = lost it",
            ", [pipeline:main], pipeline = lost it: No section 'lost'",
        ),
        (
            f"{IT}[composite:main]\nuse = call:exampleapp:both\nx = lost",
            ", [composite:main], x = lost: No section 'lost'",
        ),
        (
            f"{APP}filter-with = x\n[filter:x]\nuse = egg:nosuchdist",
            ", [filter:x], use = egg:nosuchdist: no distribution nosuchdist",
        ),
        (
            f"[DEFAULT]\nb = 0\n{APP}x = %(b)s",
            ": the variable a has b in its value. Pass each on its own: --ini-var a=",
        ),
        (f"\ufeff{APP.lstrip()}", ": the file begins with a byte order mark; "),
        (
            f"{APP}celery.result_expires = None",
            (
                ", [app:main]: celery.result_expires = 'None' is not a number (float); "
                "write null for no value"
            ),
        ),
        (
            f"{APP}pyramid_tasks.gc_freeze = maybe",
            ", [app:main]: pyramid_tasks.gc_freeze = 'maybe' is not a boolean",
        ),
        (
            f'{APP}celery.beat_schedule = {{"a": {{"task": "b", "schedule": {{}}}}}}',
            (
                ", [app:main]: celery.beat_schedule has an entry 'a' that cannot be "
                "read: schedule is missing."
            ),
        ),
        (
            LOGGING.replace("StreamHandler", "raven.SentryHandler"),
            (
                ", [handler_console] class = raven.SentryHandler cannot be imported: "
                "there is no module raven."
            ),
        ),
        (
            LOGGING.replace("StreamHandler", "StreamHandlr"),
            ", [handler_console] class = StreamHandlr is not one of ",
        ),
        (
            LOGGING.replace("stderr", "stder"),
            ", [handler_console] args cannot be read: module 'sys' has no attribute",
        ),
        (
            LOGGING.replace("sys.stderr", "'\0'"),
            ", [handler_console] args cannot be read: ",
        ),
        (
            LOGGING.replace("INFO", "INF"),
            ", [logger_root] level = INF is not one of ",
        ),
        (
            LOGGING.replace("handlers = console", "handlers = consol"),
            ", [logger_root] handlers = consol is not one of console. Did you mean",
        ),
        (
            LOGGING.replace("[handlers]\nkeys = console\n", ""),
            ", [handlers] keys is missing.",
        ),
        (
            LOGGING.replace("formatter = generic", "formatter = genric"),
            ", [handler_console] formatter = genric is not one of generic.",
        ),
    ],
)
def test_mistakes(told: Told, text: str, said: str) -> None:
    """The one sentence names the file, the section and the key."""
    found = [each for each in told(text, a="1,b=2") if "web process" not in each]
    (sentence,) = found
    assert sentence.startswith(said)


@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}/x@localhost",
        f"redis://user:123/{SECRET}@localhost",
        f"redis://:{SECRET}#x@localhost",
        f"redis://:x;{SECRET}@localhost",
        f"redis://:{SECRET}[@localhost",
        f"redis://:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost/name",
        f"amqp://:{SECRET}/@localhost",
        f"db+postgresql://user:{SECRET}/x@localhost/db",
        f"redis://:{SECRET}@[::1",
    ],
)
def test_address_that_cannot_be_read(
    told: Told, write_ini: Callable[..., Path], url: str, name: str
) -> None:
    """A worker, the check and a web process tell so, and show no part of it."""
    text = f"{APP.replace(f'celery.{name} = ', '# ')}celery.{name} = {url}\n"
    (sentence,) = told(text)
    assert sentence.startswith(f", [app:main]: celery.{name} ")
    with pytest.raises(ConfigurationExecutionError) as caught:
        plaster.get_loader(str(write_ini(text))).get_wsgi_app()
    for said in sentence, str(caught.value):
        assert "is not a URL" in said or "a database that is not a number" in said
        assert SECRET not in said


def test_address_in_the_environment(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv("CELERY_BROKER_URL", f"redis://:{SECRET}/x@localhost")
    first, *others = told(APP)
    assert first.startswith("the environment: CELERY_BROKER_URL is not a URL: ")
    assert SECRET not in "".join(others)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%%2F@localhost:6379/1",
        "redis+socket:///tmp/redis.sock?virtual_host=1",
        "sentinel://:pw@one:26379;sentinel://two:26379/1",
        "db+sqlite:///a@b.sqlite",
        "rpc://",
    ],
)
def test_address_that_can_be_read(write_ini: Callable[..., Path], url: str) -> None:
    """Every form that Celery reads is left to Celery."""
    text = APP.replace("cache+memory://", url)
    app = open_app(str(write_ini(text)))
    assert app.conf.result_backend == url.replace("%%", "%")


def test_result_backend_of_one_process(write_ini: Callable[..., Path]) -> None:
    """The check tells that no other process finds the results."""
    ini = write_ini(APP.replace("cache+memory", "rpc"))
    (found,) = find_problems(str(ini), {})
    assert "request.get_task_result() finds none" in str(found["message"])


def test_file_in_another_encoding(told: Told, tmp_path: Path) -> None:
    """The sentence names the byte and the encoding."""
    ini = tmp_path / "latin.ini"
    ini.write_bytes(f"{APP}x = é".encode("latin-1"))
    (found,) = find_problems(str(ini), {})
    assert "the byte 0xe9 is none of the encoding utf-8" in str(found["message"])


def test_import_error_inside_a_handler(
    write_ini: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the application's own code keeps its traceback."""
    ini = write_ini(LOGGING.replace("StreamHandler", "failing_import.Handler"))
    (found,) = find_problems(str(ini), {})
    assert "see the traceback above" in str(found["message"])
    assert "No module named 'missing_dependency'" in capsys.readouterr().err


# What is only a warning for a worker.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{APP}[timezone]\n", "did you mean timezone = VALUE in [celery:main]"),
        (f"{APP}[celerybeat]\n", "[celerybeat]: did you mean [celerybeat:...]?"),
        (f"{APP}[celeryd:x]\n", "[celeryd:x]: did you mean [celery:...]?"),
        (
            f"{APP}[celery]\nUSE_CELERYCONFIG = True\n",
            "USE_CELERYCONFIG is not a setting: no celeryconfig.py is read. Write the",
        ),
        (
            LOGGING.replace("formatter = ", "formater = "),
            "[handler_console] formater: did you mean formatter?",
        ),
    ],
)
def test_warnings(
    write_ini: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    text: str,
    said: str,
) -> None:
    """The check tells it, and the worker logs it."""
    ini = str(write_ini(text))
    (found,) = find_problems(ini, {})
    assert said in f"{found['where']}: {found['message']}"
    open_app(ini)
    assert said in caplog.text + capsys.readouterr().err


def test_setting_of_a_plugin(write_ini: Callable[..., Path]) -> None:
    """The check tells how to leave such settings out."""
    ini = str(write_ini(f"{APP}celery.someplugin_key = 1\n"))
    (found,) = find_problems(ini, {})
    assert found["kind"] == UnknownSetting.__name__
    assert str(found["message"]).endswith("out with --ignore 'someplugin_*'.")


# What takes effect.


def test_case_of_a_setting(write_ini: Callable[..., Path]) -> None:
    """Older packages ignore the case; the name in small letters wins."""
    app = open_app(
        str(
            write_ini(
                f"{APP}[celery]\nRESULT_EXPIRES = 5\nWorker_Concurrency = 3\n"
                "TIMEZONE = Europe/Paris\ntimezone = Europe/Berlin\n"
            )
        )
    )
    assert (app.conf.result_expires, app.conf.worker_concurrency) == (5, 3)
    assert app.conf.timezone == "Europe/Berlin"


def test_schedule_as_json(write_ini: Callable[..., Path]) -> None:
    """Beat reads the entries of beat_schedule in each form of [celerybeat:NAME]."""
    ini = write_ini(
        f"""{APP}celery.beat_schedule =
            {{"a": {{"task": "exampleapp.now", "schedule": "0 3 * * *"}},
              "b": {{"task": "exampleapp.now", "schedule": 30}},
              "c": {{"task": "exampleapp.now", "type": "crontab",
                     "schedule": {{"hour": 3}}}}}}
        """
    )
    app = open_app(str(ini))
    service = beat.Service(app, schedule_filename=str(ini.parent / "beat"))
    entries = service.scheduler.schedule
    assert all(isinstance(entries[name].schedule, BaseSchedule) for name in "abc")
    assert find_problems(str(ini), {}) == []


def test_variables_are_values(write_ini: Callable[..., Path]) -> None:
    """A percent sign needs no second one, in an included file neither."""
    write_ini(f"{APP}x.one = %(one)s\nx.two = %(two)s\n", "base.ini")
    ini = write_ini("[DEFAULT]\ntwo = k%%2Fey\n[app:main]\nuse = config:base.ini\n")
    for value in "k%2Fey", "k%%2Fey":
        app = open_app(str(ini), variables={"one": value})
        settings = app.registry.settings
        assert (settings["x.one"], settings["x.two"]) == ("k%2Fey", "k%2Fey")


def test_misspelt_secret(write_ini: Callable[..., Path]) -> None:
    """``celery report`` does not show it."""
    app = open_app(str(write_ini(f"{APP}celery.broker_pasword = {SECRET}\n")))
    assert SECRET not in app.bugreport()


def test_web_process_leaves_the_worker_alone(write_ini: Callable[..., Path]) -> None:
    """It does not import what only a worker does."""
    text = f"{APP}celery.imports = nosuchmod\ncelery.worker_pool = nosuchmod:Pool\n"
    wsgi_app = plaster.get_loader(str(write_ini(text))).get_wsgi_app()
    assert get_tasks(wsgi_app.registry).app.conf.imports == ["nosuchmod"]
