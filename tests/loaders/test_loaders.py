"""Loading a Celery application from a configuration file."""

from __future__ import annotations

import logging
import os
import re
import traceback
from pathlib import Path

import plaster
import plaster_pastedeploy
import pytest
from celery import Celery
from pyramid.exceptions import ConfigurationExecutionError

from pyramid_tasks import PyramidTasksError, loaders
from pyramid_tasks.exceptions import ConfigFileNotFound, LoadError, SettingError
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.loaders.protocol import find_loader
from pyramid_tasks.loaders.watched import find_ignored
from pyramid_tasks.scripts.problems import find_problems
from pyramid_tasks.worker.loader import PyramidLoader

CONFIGS = Path(__file__).parent.parent / "configs"
FACTORY = "pyramid_tasks.loaders.pastedeploy:celery_factory"

APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
"""
WITHOUT_TASKS = "[app:main]\nuse = call:exampleapp:without_tasks\n"
NOT_INCLUDED = (
    ": the application of [app:main] does not include pyramid_tasks. Call "
    'config.include("pyramid_tasks"), or add it to pyramid.includes.'
)


def setting(app):
    """Return the setting of the Pyramid application that belongs to a Celery app."""
    return app.registry.settings.get("example.setting")


# [celery:NAME]


def test_main_section():
    """[celery:main] loads [app:main]: its keys win, dictionaries merge, tasks run."""
    app = get_celery_app(str(CONFIGS / "simple.ini"))
    assert isinstance(app, Celery)
    assert isinstance(app.loader, PyramidLoader)
    conf = app.conf
    assert conf.broker_url == "memory://app"
    assert conf.worker_concurrency == 4
    assert conf.task_default_queue == "of the worker"
    assert conf.broker_transport_options == {"visibility_timeout": 3600, "region": "eu"}
    assert "exampleapp.add" in app.tasks
    found = app.tasks["exampleapp.describe"].apply(("x",)).get()
    assert found["setting"] == setting(app) == "from simple.ini"
    assert found["greeting"] == "hello task"
    assert found["root"] == found["context"] == "Root"


@pytest.mark.parametrize(
    ("name", "concurrency", "queue", "app_setting"),
    [
        ("main", 2, "main", "main"),
        ("emails", 2, "emails", "main"),
        ("urgent", 8, "emails", "main"),
        ("other", 2, "main", "other"),
        ("variables", 16, "main", "main"),
    ],
)
def test_sections(name, concurrency, queue, app_setting):
    """A fragment or an argument, which wins, names a section; ``use`` inherits one."""
    uri = str(CONFIGS / "several.ini")
    settings = {
        "worker_concurrency": concurrency,
        "task_default_queue": queue,
        "task_acks_late": True,
    }
    for form, argument in (f"{uri}#{name}", None), (uri, name), (f"{uri}#urgent", name):
        app = get_celery_app(form, argument)
        assert {key: app.conf[key] for key in settings} == settings
        assert setting(app) == app_setting
        assert find_loader(form).get_celery_app_settings(argument) == settings


@pytest.mark.parametrize(
    "section",
    [
        "[celery:main]\nuse = egg:pyramid_tasks",
        "[celery:main]\nuse = egg:pyramid_tasks#main",
        "[celery:main]\nuse = egg:pyramid-tasks",
        "[celery:main]",
        "[celery]",
        "[celery]\nuse = egg:pyramid_tasks",
        f"[celery:main]\npaste.celery_factory = {FACTORY}",
        f"[celery:main]\nuse = call:{FACTORY}",
    ],
)
def test_short_sections(load, section):
    """A plain [celery] is main, and a missing ``use`` means egg:pyramid_tasks."""
    app = load(f"{APP}\n{section}\nworker_concurrency = 3")
    assert app.conf.worker_concurrency == 3
    assert "exampleapp.add" in app.tasks


def test_plain_celery_can_be_inherited(load, write_ini):
    """``use = main`` finds [celery] too, and so does the ``use`` of another file."""
    text = f"{APP}[celery]\nworker_concurrency = 3\n"
    assert load(f"{text}[celery:x]\nuse = main\n", "{}#x").conf.worker_concurrency == 3
    write_ini(text, "other.ini")
    app = load(f"{APP}[celery]\nuse = config:other.ini\ntask_acks_late = true\n")
    assert app.conf.worker_concurrency == 3
    assert app.conf.task_acks_late is True


def test_program_that_imports_the_application(write_ini, monkeypatch):
    """It gets the one that CELERY_INI names."""
    monkeypatch.setenv("CELERY_INI", str(write_ini(APP)))
    assert "exampleapp.add" in loaders.app.tasks


def test_use_config():
    """``use = config:other.ini`` inherits a section of another file."""
    app = get_celery_app(str(CONFIGS / "including.ini"))
    assert app.conf.worker_concurrency == 8
    assert app.conf.task_default_queue == "of the worker"
    assert "exampleapp.add" in app.tasks
    app = get_celery_app(f"{CONFIGS}/including.ini#named")
    assert app.conf.task_default_queue == "emails"


def test_relative_path(tmp_path, monkeypatch, write_ini):
    """A path is relative to the working directory; the file may include another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of both").mkdir()
    write_ini(APP.replace("[app:main]", "[app:base]"), "of both/base.ini")
    text = "[app:main]\nuse = config:of%%20both/base.ini#base\n"
    write_ini(f"{text}celery.beat_schedule_filename = %(here)s/x")
    app = get_celery_app("config.ini")
    assert "exampleapp.add" in app.tasks
    assert app.conf.beat_schedule_filename == f"{tmp_path}/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[app:base]\nbroken\n", "/base.ini: line 2 is neither"),
        ("broken = 1\n", "/base.ini: line 1 stands before the first"),
        (None, "/config.ini, [app:main], use = config:base.ini#base: there is no file"),
    ],
)
def test_error_in_an_included_file(load, write_ini, tmp_path, text, said):
    """The sentence names the file that has the mistake."""
    if text:
        write_ini(text, "base.ini")
    with pytest.raises(LoadError) as caught:
        load("[app:main]\nuse = config:base.ini#base\n")
    assert str(caught.value).startswith(str(tmp_path) + said)


@pytest.mark.parametrize(
    "line",
    [
        "use = call:exampleapp:custom_factory",
        "use = egg:exampleapp",
        "use = egg:exampleapp#named",
        "paste.celery_factory = exampleapp:custom_factory",
    ],
)
@pytest.mark.usefixtures("distribution")
def test_factory(load, line):
    """The factory can be of any package, which can publish it."""
    assert load(f"[celery:main]\n{line}\n").main == "custom"


@pytest.mark.parametrize("section", ["", "[server:main]\nuse = egg:waitress#main"])
@pytest.mark.parametrize("scheme", ["", "ini://", "pastedeploy+ini://"])
def test_no_section(load, section, scheme):
    """Without [celery:...], the worker loads [app:main], and its settings are all."""
    app = load(APP + section, f"{scheme}{{}}")
    assert app.conf.broker_url == "memory://"
    assert "exampleapp.add" in app.tasks


@pytest.mark.parametrize(
    "section", ["app", "application", "composite", "pipeline", "filter-app"]
)
def test_no_section_and_a_name(load, section):
    """A fragment names any section that makes an application."""
    lines = {
        "composite": "use = call:exampleapp:both\na = main",
        "pipeline": "pipeline = main",
        "filter-app": "paste.filter_factory = exampleapp:wrap\nnext = main",
    }.get(section, "use = main")
    app = load(f"{APP}[{section}:x]\n{lines}\n", "{}#x")
    assert "exampleapp.add" in app.tasks


# Variables.


@pytest.mark.parametrize(
    "text",
    [
        f"{APP}celery.task_default_queue = q-%(port)s\n[celery:x]\n",
        f"{APP}[celery:x]\ntask_default_queue = q-%(port)s\n",
    ],
)
@pytest.mark.parametrize(
    ("uri", "options", "default"),
    [
        ("{}?port=1&b=2#x", {}, ""),
        ("{}#x", {"port": "1"}, ""),
        ("{}?port=2#x", {"port": "1"}, ""),
        ("{}#x", {}, "[DEFAULT]\nport = 1\n"),
    ],
)
def test_variables(load, caplog, text, uri, options, default):
    """%(variable)s comes from the URI, from the options or from [DEFAULT].

    It is no setting of Celery itself, so it makes no warning.
    """
    app = load(f"{default}{text}", uri, **options)
    assert app.conf.task_default_queue == "q-1"
    assert "is not a setting" not in caplog.text


def test_variables_are_those_of_pserve(load, write_ini):
    """The application has them as from pserve, where [DEFAULT] has one as well.

    So it has with a section of another file.
    """
    text = f"[DEFAULT]\nport = 1\n{APP}example.setting = %(port)s\n[celery:main]\n"
    included = "[app:main]\nuse = config:base.ini\n"
    write_ini(text, "base.ini")
    for each in text, included:
        settings = plaster.get_loader(str(write_ini(each))).get_wsgi_app_settings(
            defaults={"port": "2"}
        )
        assert setting(load(each, port="2")) == settings["example.setting"]


# Wrapped applications.


@pytest.mark.parametrize("name", ["main", "pipe", "filtered", "one", "plain"])
def test_wrapped(name):
    """The application is found however it is wrapped, and ``app = NAME`` names it."""
    app = get_celery_app(f"{CONFIGS}/wrapped.ini#{name}")
    assert "exampleapp.add" in app.tasks
    assert setting(app) == (None if name == "main" else "plain")


def test_several_applications():
    """Where several are loaded, one must be named, and the error lists them."""
    with pytest.raises(LoadError) as caught:
        get_celery_app(f"{CONFIGS}/wrapped.ini#two")
    said = str(caught.value)
    assert said.startswith(f"{CONFIGS}/wrapped.ini: [app:two] loads 2 applications")
    assert "(exampleapp, exampleapp)" in said
    assert said.endswith("Name the section of one: app = NAME.")


# Missing and broken files.


@pytest.mark.parametrize("uri", ["{}", "{}#x", "{}?a=1", "file+ini://{}"])
def test_missing_file(tmp_path, uri):
    """A file that is not there is said to be, as the error that Python has for it."""
    path = tmp_path / "missing.ini"
    with pytest.raises(ConfigFileNotFound, match="there is no such file") as caught:
        get_celery_app(uri.format(path))
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, LoadError)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.toml", b"", "Install a plaster loader for this format"),
        ("config.xyz", b"", "Install a plaster loader for this format"),
        ("config", b"", "Install a plaster loader for this format"),
        ("x.ini", b"[app:main]\n\xff\0", "the byte 0xff is none of the encoding utf-8"),
        ("broken.yaml", b"app: [\n", r"broken\.yaml cannot be read: .*line 2"),
    ],
)
def test_file_that_cannot_be_read(tmp_path, name, content, said):
    """A format without a loader, other bytes and bad syntax are told in a sentence."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LoadError, match=said) as caught:
        get_celery_app(str(path))
    assert name in str(caught.value)


def test_no_file(tmp_path):
    """A directory is no file, and nor is an empty URI."""
    (tmp_path / "folder.ini").mkdir()
    with pytest.raises(LoadError, match=r"folder\.ini"):
        get_celery_app(f"{tmp_path}/folder.ini")
    with pytest.raises(LoadError, match="Install a plaster loader"):
        get_celery_app(str(tmp_path))
    with pytest.raises(LoadError):
        get_celery_app("")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither [celery:main] nor [app:main]; it has no section for an app"),
        ("[server:main]\n", "it has no section for an application."),
        (
            "[app:web]\n[celery:emails]\n[pipeline:x]\n[loggers]\n[server:main]\n",
            "it has [app:web], [celery:emails], [pipeline:x].",
        ),
        (
            f"{APP}[celery]\n[celery:main]\n",
            " has both [celery] and [celery:main], which are the same. Keep one",
        ),
        ("[celery:main]\napp = missing\n", "missing"),
        (f"{APP}[celery:main]\napp =\n", ", [celery:main], app = : No section ''"),
        (f"{APP}[celery:main]\napp = a b\n", ", [celery:main], app = a b: No sect"),
        (f"{APP}get a = b\nget x = y\n[DEFAULT]\nb=1", ", [app:main], get x = y: 'y'"),
        ("[celery:main]\nuse = missing\n", "missing"),
        (f"{APP}[celery:main]\nuse = main\n", "inherits from itself"),
        (f"{APP}[celery:main]\nuse = egg:pyramid_taks\n", "pyramid_taks"),
        (f"{APP}[celery:main]\nuse = egg:pyramid_tasks#x\n", "'x' not found"),
        (f"{APP}[celery:main]\nuse = egg:waitress#main\n", "waitress"),
        ("[celery:main]\nuse = call:missing.module:x\n", "No module named 'missing'"),
        ("[celery:main]\nuse = call:exampleapp:missing\n", "missing"),
        ("[celery:main]\nuse = call:exampleapp\n", "module:function"),
        ("[celery:main]\nuse = config:missing.ini\n", "missing.ini"),
        ("[app:main]\nuse = call:exampleapp:missing\n", "missing"),
        ("[app:main]\nuse = egg:missing\n", "missing"),
        ("[app:main]\n", "No loader given in section 'app:main'"),
        (
            "[celery:main]\nuse = call:exampleapp:without_tasks\n",
            (
                ", [celery:main], use = call:exampleapp:without_tasks: without_tasks() "
                "takes 1 positional argument but 2 were given"
            ),
        ),
        (
            "[app:main]\na = 1\nuse = call:failing:wrong_signature\n",
            (
                ", [app:main], use = call:failing:wrong_signature: wrong_signature() "
                "got an unexpected keyword argument 'a'"
            ),
        ),
        (
            (
                f"{APP}filter-with = x\n[filter:x]\na = 1\n"
                "use = call:failing:wrong_signature"
            ),
            ", [filter:x], use = call:failing:wrong_signature: wrong_signature() got",
        ),
        (
            "[celery:main]\nuse = call:nativeloader:wrong_factory\n",
            ", [celery:main]: the factory returned 'no application', not a Celery app",
        ),
        (WITHOUT_TASKS, NOT_INCLUDED),
        (f"{WITHOUT_TASKS}[celery:main]\n", NOT_INCLUDED),
    ],
)
def test_what_a_file_lacks(refused, text, said):
    """What is missing is named, beside the file, with what to do."""
    assert said in refused(text)


def test_fragment_that_names_nothing(refused):
    """What it names is missing, and the sentence says what there is."""
    said = refused(APP, "{}#emails")
    assert "neither [celery:emails] nor [app:emails]; it has [app:main]." in said
    assert "it has [app:main], [celery]." in refused(f"{APP}[celery]", "{}#x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{APP}celery.task_default_queue = %(queue)s\n",
            (
                "[app:main] celery.task_default_queue uses %(queue)s, which nothing "
                "sets; pass --ini-var queue=VALUE (to ptasks, queue=VALUE), or set it "
                "in [DEFAULT]."
            ),
        ),
        (
            f"{APP}[celery:main]\ntask_default_queue = %(queue)s\n",
            "[celery:main] task_default_queue uses %(queue)s",
        ),
        (
            f"{APP}[celerybeat:x]\ntask = %(queue)s\nschedule = 5\n",
            "[celerybeat:x] task uses %(queue)s",
        ),
        (
            f"{APP}[celery:main]\nbroker_url = redis://:hunter2%@localhost\n",
            "[celery:main] broker_url cannot be read; a percent sign in a value must",
        ),
        (
            f"{APP}celery.result_backend = redis://:hunter2%@localhost\n",
            "[app:main] celery.result_backend cannot be read; a percent sign",
        ),
        (f"{APP}[celery]\nbroker_url = redis://:hunter2%(\n", "must be doubled: %%."),
        (
            f"{APP}celery.result_backend = redis://:hunter2@%(host)s\n",
            "uses %(host)s, which nothing sets",
        ),
        ("hunter2 = 1\n[app:main]\n", "line 1 stands before the first [section]."),
        (
            "[app:main]\nhunter2 without anything\n",
            "line 2 is neither a [section] nor key = value.",
        ),
        ("[app:main]\na = 1\n[app:main]\n", "section 'app:main' already exists"),
        ("[app:main]\na = 1\na = 2\n", "option 'a' in section 'app:main' already"),
    ],
)
def test_what_cannot_be_read(refused, text, said):
    """A mistake in the file is a sentence that says where, and shows no secret."""
    sentence = refused(text)
    assert said in sentence
    assert "hunter2" not in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_file_without_permission(write_ini):
    """A file that cannot be read is a sentence."""
    path = write_ini(APP)
    path.chmod(0)
    with pytest.raises(LoadError, match="Permission denied"):
        get_celery_app(str(path))


# Settings.


@pytest.mark.parametrize(
    ("lines", "source", "key"),
    [
        ("celery.result_expires = 1 day", "[app:main]", "celery.result_expires"),
        ("celery.timezone.x = 1\n[celery:main]", "[app:main]", "celery.timezone.x"),
        ("[celery:main]\nresult_expires = 1 day", "[celery:main]", "result_expires"),
        ("[celery]\nresult_expires = 1 day", "[celery]", "result_expires"),
        ("[celery:main]\nbroker_url.x = 1", "[celery:main]", "broker_url.x"),
    ],
)
def test_wrong_setting(load, tmp_path, lines, source, key):
    """An error about a setting names the file, the section and the key."""
    with pytest.raises(SettingError) as caught:
        load(APP + lines)
    assert caught.value.key == key
    assert caught.value.source == f"{tmp_path}/config.ini, {source}"
    assert str(caught.value).startswith(f"{tmp_path}/config.ini, {source}: {key} ")


def test_setting_that_the_application_refuses(load, tmp_path):
    """An error about a setting of its own, at the commit, names the place, too."""
    with pytest.raises(SettingError) as caught:
        load("[app:main]\nuse = call:failing:setting_error\n")
    assert str(caught.value) == f"{tmp_path}/config.ini, [app:main]: own.key is wrong."


# Errors of the application itself.


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("failing:attribute_error", AttributeError),
        ("failing:lookup_error", LookupError),
        ("failing:key_error", KeyError),
        ("failing:import_error", ImportError),
        ("failing:import_error_by_name", ImportError),
        ("failing:type_error", TypeError),
        ("failing:file_error", FileNotFoundError),
        ("failing:configparser_error", Exception),
        ("failing:logging_error", ValueError),
        ("failing:reads_a_file", FileNotFoundError),
        ("failing:action_error", ConfigurationExecutionError),
        ("failing_import:main", ImportError),
        ("exampleapp:broken", AttributeError),
    ],
)
@pytest.mark.parametrize("section", ["", "[celery:main]\n"])
def test_error_of_the_application(load, function, error, section):
    """An error in the application's own code stays that error, with its traceback."""
    with pytest.raises(error) as caught:
        load(f"[app:main]\nuse = call:{function}\n{section}")
    assert not isinstance(caught.value, PyramidTasksError)
    module = function.partition(":")[0]
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.filename.endswith(f"/{module}.py") for frame in frames)


def test_syntax_error_of_the_application(load, tmp_path, monkeypatch):
    """So does a syntax error, whose traceback says where it is."""
    (tmp_path / "failing_syntax.py").write_text("def main(\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SyntaxError):
        load("[app:main]\nuse = call:failing_syntax:main\n")


def test_error_of_a_celery_factory(load):
    """So does an error in a factory of another package."""
    with pytest.raises(LookupError, match="of the factory") as caught:
        load("[celery:main]\nuse = call:failing:factory_error\n")
    assert not isinstance(caught.value, LoadError)


# Schedules.


def test_schedule_of_a_foreign_celery_app(load, refused):
    """It is checked for the application of another package's factory too."""
    factory = "[celery:main]\nuse = call:exampleapp:custom_factory\n"
    section = "[celerybeat:x]\ntask = {}\nschedule = 5\n"
    app = load(factory + section.format("celery.backend_cleanup"))
    assert app.conf.beat_schedule["x"]["task"] == "celery.backend_cleanup"
    assert "'missing'" in refused(factory + section.format("missing"))


def test_schedule_of_an_imported_task(load):
    """Tasks of modules in Celery's ``imports`` can be scheduled."""
    text = f"{APP}celery.imports = sharedtasks\n"
    app = load(f"{text}[celerybeat:x]\ntask = shared.task\nschedule = 5\n")
    assert "shared.task" in app.tasks
    assert list(app.conf.beat_schedule) == ["x"]


# pyramid_tasks.config_uri


URI = f"{APP}pyramid_tasks.config_uri = %(__file__)s\n"


def test_web_process_reads_the_section(web, caplog):
    """With config_uri, the web process has its settings; ``app`` is none of these."""
    app = web(
        f"{URI}celery.worker_concurrency = 2\n[celery:main]\nuse = egg:pyramid_tasks\n"
        "app = main\nbroker_url = memory://section\nworker_concurrency = 4\n"
    )
    assert app.conf.broker_url == "memory://section"
    assert app.conf.worker_concurrency == 4
    assert "app" not in app.conf
    assert caplog.records == []


@pytest.mark.parametrize(
    ("line", "queue"),
    [
        ("", "celery"),
        ("pyramid_tasks.config_uri = %(__file__)s#main\n", "main"),
        ("pyramid_tasks.config_uri = %(__file__)s#emails\n", "emails"),
    ],
)
def test_config_uri_with_a_fragment(web, line, queue):
    """A fragment names the section; without config_uri, it is the worker's alone."""
    app = web(
        f"{APP}{line}[celery:main]\ntask_default_queue = main\n"
        "[celery:emails]\nuse = main\ntask_default_queue = emails\n"
    )
    assert app.conf.task_default_queue == queue


def test_config_uri_in_a_worker(load):
    """In a worker the section that it was started with wins."""
    text = f"{URI}[celery:main]\ntask_default_queue = main\nworker_concurrency = 2\n"
    conf = load(f"{text}[celery:x]\ntask_default_queue = emails\n", "{}#x").conf
    assert conf.task_default_queue == "emails"
    assert "worker_concurrency" not in conf.changes
    assert conf.worker_concurrency is None


def test_config_uri_gives_schedules_and_routes(web):
    """The web process follows the routes of the file, and can show the schedule."""
    app = web(
        f"{URI}[celerybeat:a]\ntask = exampleapp.threadlocals\nschedule = 5\n"
        "[celeryroute:exampleapp.add]\nqueue = images\n"
    )
    assert app.conf.task_routes == {"exampleapp.add": {"queue": "images"}}
    assert list(app.conf.beat_schedule) == ["a"]
    assert app.amqp.router.route({}, "exampleapp.add")["queue"].name == "images"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("%(here)s/missing.ini", "missing.ini: there is no such file"),
        ("%(__file__)s#x", "has neither [celery:x] nor [app:x]"),
        ("true", '"true". Install a plaster loader for this format. Write %(__file__)'),
        ("x://y", '"x". Install a plaster loader for this format. Write %(__file__)s,'),
        ("%(here)s", "Install a plaster loader for this format. Write %(__file__)s,"),
    ],
)
def test_wrong_config_uri(web, load, caplog, write_ini, uri, said):
    """The web process does not start; the check and the worker tell it as well."""
    text = URI.replace("%(__file__)s", uri)
    with pytest.raises(SettingError) as caught:
        web(text)
    sentence = str(caught.value)
    assert re.search(
        r"config\.ini, \[app:main\]: pyramid_tasks\.config_uri = ", sentence
    )
    assert said in sentence
    found = find_problems(str(write_ini(text)), {})
    assert sentence in [f"{each['where']}: {each['message']}" for each in found]
    load(text)
    assert sentence in caplog.messages


@pytest.mark.parametrize(
    "section", ["celery]\ntimezone = %(x)s", "celeryroute:exampleapp.add]\nqueue = 5"]
)
def test_mistake_behind_config_uri(web, section):
    """The sentence is about the section, and not about what names the file."""
    with pytest.raises(SettingError) as caught:
        web(f"{URI}[{section}\n")
    assert f"[{section.partition(']')[0]}]" in str(caught.value)
    assert "Write %(__file__)s" not in str(caught.value)


def test_wrong_setting_behind_config_uri(web):
    """A wrong setting of the section stops the web process too, with its place."""
    with pytest.raises(SettingError, match=r"config\.ini, \[celery:main\]: result_exp"):
        web(f"{URI}[celery:main]\nresult_expires = 1 day\n")


@pytest.mark.parametrize("text", [APP, URI])
def test_routes_without_config_uri(load, caplog, text):
    """Routes are of no use to a web process that does not read them: a warning."""
    load(f"{text}[celeryroute:exampleapp.add]\nqueue = x\n")
    warned = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == (text is APP)
    assert ("pyramid_tasks.config_uri = %(__file__)s" in caplog.text) == (text is APP)


@pytest.mark.parametrize("scheme", ["", "file+ini://", "pastedeploy://"])
def test_schemes(write_ini, scheme):
    """Each scheme for an ini works, and plaster.get_loader() is as for pserve."""
    uri = f"{scheme}{write_ini(APP)}"
    assert get_celery_app(uri).conf.broker_url == "memory://"
    for protocols in (None, ["wsgi"]):
        loader = plaster.get_loader(uri, protocols=protocols)
        assert type(loader) is plaster_pastedeploy.Loader
        assert loader.get_wsgi_app_settings()["celery.broker_url"] == "memory://"


# The loader protocol.


def test_loader_speaks_both_protocols(write_ini):
    """The loader of an ini is plaster's, with the methods for Celery."""
    loader = find_loader(str(write_ini(f"{APP}[celery]\nworker_concurrency = %(n)s")))
    assert isinstance(loader, plaster_pastedeploy.Loader)
    assert loader.get_sections() == ["app:main", "celery"]
    found = loader.get_celery_app_settings(defaults={"n": "3"})
    assert found == {"worker_concurrency": 3}
    assert loader.get_celery_app(defaults={"n": "3"}).conf.worker_concurrency == 3
    assert find_loader(str(write_ini(APP))).get_celery_app_settings() == {}


@pytest.mark.parametrize("scheme", ["native", "generic"])
@pytest.mark.usefixtures("distribution")
def test_loader_of_another_package(write_ini, scheme):
    """A loader that speaks the protocol is used as it is, however it is published."""
    path = write_ini("name = native\n", f"config.{scheme}")
    app = get_celery_app(f"{path}#x", "a name", {"a": "b"})
    assert app.main == "name = native"
    assert app.conf.arguments == ("a name", {"a": "b"})
    assert get_celery_app(f"{path}#x").conf.arguments == (None, None)


@pytest.mark.usefixtures("distribution")
def test_files_that_another_loader_ignores(write_ini):
    """A loader that only speaks the protocol for Celery has no section for pserve."""
    assert find_ignored(str(write_ini("native", "config.native")), {}) == []


# YAML, through plaster-yaml.


@pytest.mark.usefixtures("distribution")
def test_yaml():
    """A loader that knows nothing of Celery is adapted: the section ``celery``."""
    app = get_celery_app(str(CONFIGS / "celery.yaml"))
    assert app.conf.broker_url == "memory://"
    assert app.conf.worker_concurrency == 2
    assert app.conf.task_default_queue == "of the worker"
    assert app.conf.task_acks_late is True
    assert app.conf.task_time_limit == 60
    assert app.conf.broker_transport_options == {"visibility_timeout": 3600}
    assert "exampleapp.add" in app.tasks
    assert setting(app) == "main"


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize(("form", "name"), [("#emails", None), ("", "emails")])
def test_yaml_with_a_name(form, name):
    """A fragment names the section ``celery:NAME``, and ``app`` the application."""
    app = get_celery_app(f"{CONFIGS}/celery.yaml{form}", name)
    assert app.conf.task_default_queue == "emails"
    assert setting(app) == "other"


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize("fragment", ["", "#app"])
def test_yaml_without_a_section(fragment):
    """Without such a section, the settings of the application are all."""
    app = get_celery_app(f"{CONFIGS}/plain.yaml{fragment}")
    assert app.conf.worker_concurrency == 3
    assert find_loader(f"{CONFIGS}/plain.yaml").get_celery_app_settings() == {}


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        (
            "celery.yaml#broken",
            SettingError,
            "celery.yaml.*'celery:broken': result_expires = '1 day'",
        ),
        ("missing.yaml", ConfigFileNotFound, "there is no such file"),
        ("plain.yaml#without", LoadError, "'without' does not include"),
        ("plain.yaml#x", LoadError, "no section 'x'; it has app, without"),
        ("egg:exampleapp#without_tasks", LoadError, "does not include pyramid_tasks"),
    ],
)
def test_mistakes_in_other_forms(uri, error, said, monkeypatch):
    """A mistake in YAML or of a distribution is told as that in an ini."""
    monkeypatch.chdir(CONFIGS)
    with pytest.raises(error, match=said):
        get_celery_app(uri)


@pytest.mark.usefixtures("distribution")
def test_yaml_behind_config_uri(web):
    """A web process can read the section of a YAML file."""
    app = web(f"{APP}pyramid_tasks.config_uri = {CONFIGS}/celery.yaml\n")
    assert app.conf.task_default_queue == "of the worker"


@pytest.mark.parametrize("uri", ["egg:exampleapp", "egg:exampleapp#main"])
@pytest.mark.usefixtures("distribution")
def test_egg_uri(uri, monkeypatch):
    """An application can be loaded from a distribution, without any file."""
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    assert "exampleapp.add" in get_celery_app(uri).tasks


def test_sections_of_others(load, caplog):
    """Sections that have nothing to do with Celery are left alone."""
    load(f"{APP}[server:main]\n[alembic]\n[delivery:x]\n[celery:other]\n")
    assert "did you mean" not in caplog.text
