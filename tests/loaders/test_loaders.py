"""Loading a Celery application from a configuration file."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

import plaster
import plaster_pastedeploy
import pytest
from celery import Celery
from pyramid.exceptions import ConfigurationError

from pyramid_tasks import PyramidTasksError
from pyramid_tasks.exceptions import ConfigFileNotFound, LoadError, SettingError
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.loaders.protocol import find_loader
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.worker.loader import PyramidLoader

CONFIGS = Path(__file__).parent.parent / "configs"

APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
"""


@pytest.fixture
def load(write_ini):
    """Return a function that writes an ini and loads it."""

    def load(text, uri="{}", name=None, **variables):
        return get_celery_app(uri.format(write_ini(text)), name, variables or None)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """Return a function that loads an ini, and gives the sentence that refuses it."""

    def refused(*args, **kwargs):
        with pytest.raises(LoadError) as caught:
            load(*args, **kwargs)
        assert isinstance(caught.value, PyramidTasksError)
        assert isinstance(caught.value, ConfigurationError)
        said = str(caught.value)
        assert said.startswith(f"{tmp_path}/config.ini")
        assert "\n" not in said
        return said.removeprefix(f"{tmp_path}/config.ini")

    return refused


@pytest.fixture
def web(write_ini):
    """Return a function that loads an ini as pserve does, and gives its Celery app."""

    def web(text, uri="{}"):
        wsgi_app = plaster.get_loader(uri.format(write_ini(text))).get_wsgi_app()
        return get_tasks(wsgi_app.registry).app

    return web


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution with the entry points of the example application."""
    folder = tmp_path / "site" / "exampleapp-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Name: exampleapp\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        """
[paste.app_factory]
main = exampleapp:main
without_tasks = exampleapp:without_tasks

[paste.celery_factory]
main = exampleapp:custom_factory
named = exampleapp:custom_factory

[plaster.celery_loader_factory]
file+native = nativeloader:Loader

[plaster.loader_factory]
file+generic = nativeloader:Loader
"""
    )
    monkeypatch.syspath_prepend(folder.parent)


def setting(app):
    """Return the setting of the Pyramid application that belongs to a Celery app."""
    return app.registry.settings.get("example.setting")


# [celery:NAME]


def test_main_section():
    """[celery:main] loads [app:main], and its keys are settings of Celery."""
    app = get_celery_app(str(CONFIGS / "simple.ini"))
    assert isinstance(app, Celery)
    assert isinstance(app.loader, PyramidLoader)
    assert app.conf.broker_url == "memory://app"
    assert app.conf.worker_concurrency == 4
    assert "exampleapp.add" in app.tasks
    assert setting(app) == "from simple.ini"


def test_section_wins_over_the_application():
    """A key of [celery:NAME] wins; dictionaries merge."""
    conf = get_celery_app(str(CONFIGS / "simple.ini")).conf
    assert conf.task_default_queue == "of the worker"
    assert conf.broker_transport_options == {"visibility_timeout": 3600, "region": "eu"}


def test_a_task_runs():
    """What is loaded is the whole application: a task has its request."""
    app = get_celery_app(str(CONFIGS / "simple.ini"))
    found = app.tasks["exampleapp.describe"].apply(("x",)).get()
    assert found["setting"] == "from simple.ini"
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
@pytest.mark.parametrize("form", ["fragment", "argument"])
def test_sections(name, concurrency, queue, app_setting, form):
    """``use = main`` inherits a section, and overrides keys."""
    uri = str(CONFIGS / "several.ini")
    app = (
        get_celery_app(uri, name)
        if form == "argument"
        else get_celery_app(f"{uri}#{name}")
    )
    assert app.conf.worker_concurrency == concurrency
    assert app.conf.task_default_queue == queue
    assert app.conf.task_acks_late is True
    assert setting(app) == app_setting


def test_name_wins_over_the_fragment():
    """The argument is more particular than the fragment of the URI."""
    app = get_celery_app(f"{CONFIGS}/several.ini#other", "emails")
    assert app.conf.task_default_queue == "emails"


@pytest.mark.parametrize(
    "section",
    [
        "[celery:main]\nuse = egg:pyramid_tasks",
        "[celery:main]\nuse = egg:pyramid_tasks#main",
        "[celery:main]\nuse = egg:pyramid-tasks",
        "[celery:main]",
        "[celery]",
        "[celery]\nuse = egg:pyramid_tasks",
        (
            "[celery:main]\npaste.celery_factory = "
            "pyramid_tasks.loaders.pastedeploy:celery_factory"
        ),
        "[celery:main]\nuse = call:pyramid_tasks.loaders.pastedeploy:celery_factory",
    ],
)
def test_short_sections(load, section):
    """A plain [celery] is main, and a missing ``use`` means egg:pyramid_tasks."""
    app = load(f"{APP}\n{section}\nworker_concurrency = 3")
    assert app.conf.worker_concurrency == 3
    assert "exampleapp.add" in app.tasks


def test_both_celery_and_celery_main(refused):
    """[celery] and [celery:main] are the same, of which there can be one."""
    said = refused(f"{APP}[celery]\n[celery:main]\n")
    assert said.startswith(" has both [celery] and [celery:main]")
    assert "Keep one" in said


def test_plain_celery_can_be_inherited(load):
    """``use = main`` finds [celery] too."""
    text = f"{APP}[celery]\nworker_concurrency = 3\n[celery:x]\nuse = main\n"
    assert load(text, "{}#x").conf.worker_concurrency == 3


def test_use_config():
    """``use = config:other.ini`` inherits a section of another file."""
    app = get_celery_app(str(CONFIGS / "including.ini"))
    assert app.conf.worker_concurrency == 8
    assert app.conf.task_default_queue == "of the worker"
    assert "exampleapp.add" in app.tasks
    app = get_celery_app(f"{CONFIGS}/including.ini#named")
    assert app.conf.task_default_queue == "emails"


def test_use_config_with_a_short_section(load, write_ini):
    """The section of the other file may be as short as any."""
    write_ini(f"{APP}[celery]\nworker_concurrency = 3\n", "other.ini")
    app = load(f"{APP}[celery]\nuse = config:other.ini\ntask_acks_late = true\n")
    assert app.conf.worker_concurrency == 3
    assert app.conf.task_acks_late is True


def test_relative_path_with_use_config(tmp_path, monkeypatch):
    """An application in an included file is found from a path such as config.ini."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "of both"
    folder.mkdir()
    (folder / "base.ini").write_text(APP.replace("[app:main]", "[app:base]"))
    text = "[app:main]\nuse = config:of%%20both/base.ini#base\n"
    (tmp_path / "config.ini").write_text(text)
    assert "exampleapp.add" in get_celery_app("config.ini").tasks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[app:base]\nbroken\n", "/base.ini: line 2 is neither"),
        ("broken = 1\n", "/base.ini: line 1 stands before the first"),
        (None, "/config.ini, [app:main], use = config:base.ini#base: there is no file"),
    ],
)
def test_error_in_an_included_file(load, tmp_path, text, said):
    """The sentence names the file that has the mistake."""
    if text is not None:
        (tmp_path / "base.ini").write_text(text)
    with pytest.raises(LoadError) as caught:
        load("[app:main]\nuse = config:base.ini#base\n")
    assert str(caught.value).startswith(str(tmp_path) + said)


@pytest.mark.parametrize("use", ["call:exampleapp:custom_factory"])
def test_use_call(load, use):
    """``use = call:`` names a factory of any package."""
    app = load(f"[celery:main]\nuse = {use}\n")
    assert app.main == "custom"


@pytest.mark.parametrize("use", ["egg:exampleapp", "egg:exampleapp#named"])
@pytest.mark.usefixtures("distribution")
def test_use_egg(load, use):
    """A package can publish a factory under paste.celery_factory."""
    assert load(f"[celery:main]\nuse = {use}\n").main == "custom"


def test_celery_factory_key(load):
    """The key paste.celery_factory names a factory, as for applications."""
    app = load("[celery:main]\npaste.celery_factory = exampleapp:custom_factory\n")
    assert app.main == "custom"


@pytest.mark.parametrize("text", [APP, f"{APP}[server:main]\nuse = egg:waitress#main"])
def test_no_section(load, text):
    """Without [celery:...], the worker loads [app:main], and its settings are all."""
    app = load(text)
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


def test_relative_path(load, monkeypatch, tmp_path, write_ini):
    """A relative URI is relative to the working directory, as for pserve."""
    write_ini(f"{APP}celery.beat_schedule_filename = %(here)s/x")
    monkeypatch.chdir(tmp_path)
    app = get_celery_app("config.ini")
    assert app.conf.beat_schedule_filename == f"{tmp_path}/x"


# Variables.


@pytest.mark.parametrize("section", ["app:main", "celery:main"])
@pytest.mark.parametrize("form", ["query", "options", "both", "default"])
def test_variables(load, section, form):
    """%(variable)s comes from the URI, from the options or from [DEFAULT]."""
    key = {"app:main": "celery.task_default_queue", "celery:main": "task_default_queue"}
    text = f"{APP}[celery:main]\n".replace(
        f"[{section}]", f"[{section}]\n{key[section]} = q-%(port)s"
    )
    if form == "query":
        app = load(text, "{}?port=1")
    elif form == "options":
        app = load(text, port="1")
    elif form == "both":
        app = load(text, "{}?port=2", port="1")
    else:
        app = load(f"[DEFAULT]\nport = 1\n{text}")
    assert app.conf.task_default_queue == "q-1"


def test_variables_and_fragment(load):
    """A query and a fragment go together."""
    text = f"{APP}[celery:x]\ntask_default_queue = %(a)s%(b)s\n"
    assert load(text, "{}?a=1&b=2#x").conf.task_default_queue == "12"


def test_variables_are_those_of_pserve(load, write_ini):
    """Variables are read as pserve reads them, where [DEFAULT] has one as well."""
    text = f"[DEFAULT]\nport = 1\n{APP}celery.task_default_queue = %(port)s\n"
    settings = plaster.get_loader(str(write_ini(text))).get_wsgi_app_settings(
        defaults={"port": "2"}
    )
    found = load(text, port="2").conf.task_default_queue
    assert found == settings["celery.task_default_queue"]


def test_variables_reach_the_application(load):
    """The application has variables in its own settings."""
    text = f"{APP}example.setting = %(port)s\n[celery:main]\n"
    assert setting(load(text, port="1")) == "1"


def test_defaults_are_no_settings_of_celery(load, caplog):
    """What stands in [DEFAULT] is for interpolation, and makes no warning."""
    load(f"[DEFAULT]\nx = 1\n{APP}[celery:main]\n", port="1")
    assert "is not a setting" not in caplog.text


# Wrapped applications.


@pytest.mark.parametrize(
    ("name", "app_setting"),
    [("main", None), ("pipe", "plain"), ("filtered", "plain"), ("one", "plain")],
)
def test_wrapped(name, app_setting):
    """The application is found however it is wrapped."""
    app = get_celery_app(f"{CONFIGS}/wrapped.ini#{name}")
    assert "exampleapp.add" in app.tasks
    assert setting(app) == app_setting


def test_several_applications():
    """Where several are loaded, one must be named, and the error lists them."""
    with pytest.raises(LoadError) as caught:
        get_celery_app(f"{CONFIGS}/wrapped.ini#two")
    said = str(caught.value)
    assert said.startswith(f"{CONFIGS}/wrapped.ini: [app:two] loads 2 applications")
    assert "(exampleapp, exampleapp)" in said
    assert said.endswith("Name the section of one: app = NAME.")


@pytest.mark.parametrize("name", ["main", "plain"])
def test_one_of_several_applications(load, name):
    """``app = NAME`` names one of those that a composite has."""
    text = (CONFIGS / "wrapped.ini").read_text()
    app = load(text.replace("app = two", f"app = {name}"), "{}#two")
    assert setting(app) == {"main": None, "plain": "plain"}[name]


@pytest.mark.parametrize(
    "text",
    [
        "[app:main]\nuse = call:exampleapp:without_tasks\n",
        "[app:main]\nuse = call:exampleapp:without_tasks\n[celery:main]\n",
    ],
)
def test_application_without_tasks(refused, text):
    """An application that does not include the package is told how to."""
    said = refused(text)
    assert said == (
        ": the application of [app:main] does not include pyramid_tasks. Call "
        'config.include("pyramid_tasks"), or add it to pyramid.includes.'
    )


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


def test_directory(tmp_path):
    """Nor is a directory a file."""
    folder = tmp_path / "folder.ini"
    folder.mkdir()
    with pytest.raises(LoadError, match=r"folder\.ini"):
        get_celery_app(str(folder))
    with pytest.raises(LoadError, match="Install a plaster loader"):
        get_celery_app(str(tmp_path))


@pytest.mark.parametrize("name", ["config.toml", "config.xyz", "config"])
def test_unknown_format(write_ini, name):
    """A format that no loader is installed for says so, with what to do."""
    path = write_ini("", name)
    with pytest.raises(LoadError, match="Install a plaster loader for this format"):
        get_celery_app(str(path))


def test_empty_uri():
    """An empty URI is no file."""
    with pytest.raises(LoadError):
        get_celery_app("")


@pytest.mark.parametrize(
    ("text", "uri", "said"),
    [
        ("", "{}", "neither [celery:main] nor [app:main]; it has no section for an"),
        ("[server:main]\n", "{}", "it has no section for an application."),
        (
            "[app:web]\n[celery:emails]\n[pipeline:x]\n[loggers]\n[server:main]\n",
            "{}",
            "it has [app:web], [celery:emails], [pipeline:x].",
        ),
        (
            APP,
            "{}#emails",
            "neither [celery:emails] nor [app:emails]; it has [app:main]",
        ),
        (f"{APP}[celery]", "{}#x", "it has [app:main], [celery]."),
        ("[celery:main]\napp = missing\n", "{}", "missing"),
        ("[celery:main]\nuse = missing\n", "{}", "missing"),
        (f"{APP}[celery:main]\nuse = egg:pyramid_taks\n", "{}", "pyramid_taks"),
        (f"{APP}[celery:main]\nuse = egg:pyramid_tasks#x\n", "{}", "'x' not found"),
        (f"{APP}[celery:main]\nuse = egg:waitress#main\n", "{}", "waitress"),
        (
            "[celery:main]\nuse = call:missing.module:x\n",
            "{}",
            "No module named 'missing'",
        ),
        ("[celery:main]\nuse = call:exampleapp:missing\n", "{}", "missing"),
        ("[celery:main]\nuse = call:exampleapp\n", "{}", "module:function"),
        ("[celery:main]\nuse = config:missing.ini\n", "{}", "missing.ini"),
        ("[app:main]\nuse = call:exampleapp:missing\n", "{}", "missing"),
        ("[app:main]\nuse = egg:missing\n", "{}", "missing"),
        ("[app:main]\n", "{}", "No loader given in section 'app:main'"),
        (
            "[celery:main]\nuse = call:exampleapp:without_tasks\n",
            "{}",
            "without_tasks() takes 1 positional argument but 2 were given",
        ),
        (
            "[app:main]\na = 1\nuse = call:failing:wrong_signature\n",
            "{}",
            "wrong_signature() got an unexpected keyword argument 'a'",
        ),
    ],
)
def test_what_a_file_lacks(refused, text, uri, said):
    """What is missing is named, beside the file."""
    assert said in refused(text, uri)


def test_factory_returns_something_else(refused):
    """A factory that returns no Celery application is told so."""
    said = refused("[celery:main]\nuse = call:nativeloader:wrong_factory\n")
    assert said == (
        ", [celery:main]: the factory returned 'no application', not a Celery "
        "application."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{APP}celery.task_default_queue = %(queue)s\n",
            (
                "[app:main] celery.task_default_queue uses %(queue)s, which nothing "
                "sets; pass --ini-var queue=VALUE (to ptasks, "
                "queue=VALUE), or set it in [DEFAULT]."
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
            (
                "[celery:main] broker_url cannot be read; a percent sign in a value "
                "must be doubled: %%."
            ),
        ),
        (
            f"{APP}celery.result_backend = redis://:hunter2%@localhost\n",
            "[app:main] celery.result_backend cannot be read; a percent sign",
        ),
        (
            f"{APP}[celery:main]\nbroker_url = redis://:hunter2%(\n",
            "a percent sign",
        ),
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
def test_what_cannot_be_read(load, refused, text, said):
    """A mistake in the file is a sentence that says where, and shows no secret."""
    sentence = refused(text)
    assert said in sentence
    assert "hunter2" not in sentence


def test_binary_file(tmp_path):
    """What is no text is a sentence, too."""
    path = tmp_path / "config.ini"
    path.write_bytes(b"[app:main]\n\xff\xfe\x00")
    with pytest.raises(LoadError, match=r"config\.ini"):
        get_celery_app(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_file_without_permission(write_ini):
    """A file that cannot be read is a sentence."""
    path = write_ini(APP)
    path.chmod(0)
    with pytest.raises(LoadError, match="Permission denied"):
        get_celery_app(str(path))


# Settings.


@pytest.mark.parametrize(
    ("text", "source", "key"),
    [
        (f"{APP}celery.result_expires = 1 day", "[app:main]", "celery.result_expires"),
        (
            f"{APP}celery.result_expires = 1 day\n[celery:main]\n",
            "[app:main]",
            "celery.result_expires",
        ),
        (
            f"{APP}[celery:main]\nresult_expires = 1 day",
            "[celery:main]",
            "result_expires",
        ),
        (f"{APP}[celery]\nresult_expires = 1 day", "[celery]", "result_expires"),
        (
            f"{APP}[celery:main]\nbroker_url.x = 1",
            "[celery:main]",
            "broker_url.x",
        ),
    ],
)
def test_wrong_setting(load, tmp_path, text, source, key):
    """An error about a setting names the file, the section and the key."""
    with pytest.raises(SettingError) as caught:
        load(text)
    assert caught.value.key == key
    assert caught.value.source == f"{tmp_path}/config.ini, {source}"
    assert str(caught.value).startswith(f"{tmp_path}/config.ini, {source}: {key} ")


def test_unknown_setting(load, caplog):
    """A key that Celery does not know is a warning with the nearest one."""
    app = load(f"{APP}[celery:main]\nworker_concurency = 3\n")
    assert "Did you mean worker_concurrency?" in caplog.text
    assert app.conf.worker_concurency == 3


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


@pytest.mark.parametrize("section", ["", "[celery:main]\n"])
def test_schedule_of_a_task_that_is_not_registered(refused, section):
    """A misspelt task is an error that names section and key, and the nearest."""
    said = refused(
        f"{APP}{section}[celerybeat:nightly]\ntask = exampleapp.addd\nschedule = 5\n"
    )
    assert said.startswith(", [celerybeat:nightly], task: No task 'exampleapp.addd'")
    assert said.endswith("Did you mean 'exampleapp.add'?")


def test_schedule_with_arguments_that_do_not_fit(refused):
    """A call that could not work is found when the file is loaded."""
    text = "[celerybeat:x]\ntask = exampleapp.add\nschedule = 5\nargs = [1]\n"
    assert "[celerybeat:x], args and kwargs: " in refused(APP + text)


def test_section_that_inherits_from_itself(refused):
    """A circle of use = ... is a sentence that says so."""
    sentence = refused(APP + "[celery:main]\nuse = main\n")
    assert "inherits from itself" in sentence


def test_file_that_an_application_reads(load):
    """An error about another file, which the application reads, stays its own."""
    with pytest.raises(FileNotFoundError) as caught:
        load("[app:main]\nuse = call:failing:reads_a_file\n")
    assert not isinstance(caught.value, PyramidTasksError)


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


def test_web_process_reads_the_section(web):
    """With config_uri, the web process has the settings of [celery:main]."""
    app = web(
        """
[app:main]
use = call:exampleapp:main
pyramid_tasks.config_uri = %(__file__)s
celery.worker_concurrency = 2
[celery:main]
use = egg:pyramid_tasks
broker_url = memory://section
worker_concurrency = 4
"""
    )
    assert app.conf.broker_url == "memory://section"
    assert app.conf.worker_concurrency == 4


def test_web_process_without_config_uri(web):
    """Without it, the section is the worker's alone."""
    app = web(f"{APP}[celery:main]\ntask_default_queue = section\n")
    assert app.conf.task_default_queue == "celery"


@pytest.mark.parametrize("name", ["main", "emails"])
def test_config_uri_with_a_fragment(web, name):
    """A fragment names the section that the web process reads."""
    text = URI.replace("%(__file__)s", f"%(__file__)s#{name}")
    app = web(
        f"{text}[celery:main]\ntask_default_queue = main\n"
        "[celery:emails]\nuse = main\ntask_default_queue = emails\n"
    )
    assert app.conf.task_default_queue == name


def test_config_uri_and_the_name_of_the_app(web, caplog):
    """The key ``app`` of the section is no setting."""
    app = web(f"{URI}[celery:main]\nuse = egg:pyramid_tasks\napp = main\n")
    assert "app" not in app.conf
    assert caplog.records == []


def test_config_uri_in_a_worker(load):
    """In a worker the section that it was started with wins."""
    text = (
        f"{URI}[celery:main]\ntask_default_queue = main\nworker_concurrency = 2\n"
        "[celery:emails]\ntask_default_queue = emails\n"
    )
    conf = load(text, "{}#emails").conf
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
    ("replacement", "said"),
    [
        ("%(here)s/missing.ini", "missing.ini: there is no such file"),
        ("%(__file__)s#x", "has neither [celery:x] nor [app:x]"),
    ],
)
def test_wrong_config_uri(web, replacement, said):
    """A config_uri that leads nowhere is an error of the web process."""
    with pytest.raises(LoadError) as caught:
        web(URI.replace("%(__file__)s", replacement))
    assert said in str(caught.value)


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


# plaster, as it is without this package.


@pytest.mark.parametrize("scheme", ["", "file+ini://", "pastedeploy://"])
def test_plaster_is_left_alone(write_ini, scheme):
    """A plain plaster.get_loader finds the loader that pserve finds."""
    uri = f"{scheme}{write_ini(APP)}"
    for protocols in (None, ["wsgi"]):
        loader = plaster.get_loader(uri, protocols=protocols)
        assert type(loader) is plaster_pastedeploy.Loader
        assert loader.get_wsgi_app_settings()["celery.broker_url"] == "memory://"


@pytest.mark.parametrize("scheme", ["", "file+ini://", "ini://", "pastedeploy+ini://"])
def test_schemes(write_ini, scheme):
    """Every scheme of PasteDeploy for an ini works here as well."""
    app = get_celery_app(f"{scheme}{write_ini(APP)}")
    assert app.conf.broker_url == "memory://"


# The loader protocol.


def test_loader_speaks_both_protocols(write_ini):
    """The loader of an ini is plaster's, with the methods for Celery."""
    loader = find_loader(
        str(write_ini(f"{APP}[celery:main]\nworker_concurrency = 3\n"))
    )
    assert isinstance(loader, plaster_pastedeploy.Loader)
    assert loader.get_sections() == ["app:main", "celery:main"]
    assert loader.get_celery_app_settings() == {"worker_concurrency": 3}
    assert loader.get_celery_app().conf.worker_concurrency == 3


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "main",
            {
                "worker_concurrency": 2,
                "task_default_queue": "main",
                "task_acks_late": True,
            },
        ),
        (
            "urgent",
            {
                "worker_concurrency": 8,
                "task_default_queue": "emails",
                "task_acks_late": True,
            },
        ),
    ],
)
def test_settings_of_a_section(name, found):
    """get_celery_app_settings gives what a section says, inherited and coerced."""
    loader = find_loader(str(CONFIGS / "several.ini"))
    assert loader.get_celery_app_settings(name) == found
    assert find_loader(f"{loader.uri.path}#{name}").get_celery_app_settings() == found


def test_settings_without_a_section(write_ini):
    """Without [celery:...], a file says nothing beside the application."""
    assert find_loader(str(write_ini(APP))).get_celery_app_settings() == {}


def test_settings_with_variables(write_ini):
    """Variables are filled in there too."""
    loader = find_loader(str(write_ini(f"{APP}[celery]\nworker_concurrency = %(n)s")))
    assert loader.get_celery_app_settings(defaults={"n": "3"}) == {
        "worker_concurrency": 3
    }


@pytest.mark.parametrize("scheme", ["native", "generic"])
@pytest.mark.usefixtures("distribution")
def test_loader_of_another_package(write_ini, scheme):
    """A loader that speaks the protocol is used as it is, however it is published."""
    path = write_ini("name = native\n", f"config.{scheme}")
    app = get_celery_app(f"{path}#x", "a name", {"a": "b"})
    assert app.main == "name = native"
    assert app.conf.arguments == ("a name", {"a": "b"})
    assert get_celery_app(f"{path}#x").conf.arguments == (None, None)


# YAML, through plaster-yaml.

with_yaml = pytest.mark.usefixtures("distribution")


@with_yaml
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


@with_yaml
@pytest.mark.parametrize("form", ["fragment", "argument"])
def test_yaml_with_a_name(form):
    """A fragment names the section ``celery:NAME``, and ``app`` the application."""
    uri = str(CONFIGS / "celery.yaml")
    app = (
        get_celery_app(f"{uri}#emails")
        if form == "fragment"
        else get_celery_app(uri, "emails")
    )
    assert app.conf.task_default_queue == "emails"
    assert setting(app) == "other"


@with_yaml
@pytest.mark.parametrize("fragment", ["", "#app"])
def test_yaml_without_a_section(fragment):
    """Without such a section, the settings of the application are all."""
    app = get_celery_app(f"{CONFIGS}/plain.yaml{fragment}")
    assert app.conf.worker_concurrency == 3
    assert find_loader(f"{CONFIGS}/plain.yaml").get_celery_app_settings() == {}


@with_yaml
def test_yaml_with_a_wrong_setting():
    """A wrong setting names the file, the section and the key."""
    with pytest.raises(SettingError) as caught:
        get_celery_app(f"{CONFIGS}/celery.yaml#broken")
    assert f"{CONFIGS}/celery.yaml" in str(caught.value)
    assert "'celery:broken': result_expires = '1 day'" in str(caught.value)


@with_yaml
def test_yaml_without_tasks():
    """An application that does not include the package is told how to."""
    with pytest.raises(LoadError, match="'without' does not include pyramid_tasks"):
        get_celery_app(f"{CONFIGS}/plain.yaml#without")


@with_yaml
def test_yaml_that_is_missing(tmp_path):
    """A missing file is one in every format."""
    with pytest.raises(ConfigFileNotFound):
        get_celery_app(f"{tmp_path}/missing.yaml")


@with_yaml
def test_yaml_without_the_section_that_is_named():
    """A fragment that names nothing is a sentence that says what there is."""
    with pytest.raises(LoadError, match="no section 'missing'; it has app, without"):
        get_celery_app(f"{CONFIGS}/plain.yaml#missing")


@with_yaml
def test_yaml_that_cannot_be_parsed(tmp_path):
    """A mistake in the syntax is a sentence, too."""
    path = tmp_path / "broken.yaml"
    path.write_text("app: [\n")
    with pytest.raises(LoadError, match=r"broken\.yaml cannot be read: .*line 2"):
        get_celery_app(str(path))


@with_yaml
def test_yaml_behind_config_uri(write_ini):
    """A web process can read the section of a YAML file."""
    text = APP + f"pyramid_tasks.config_uri = {CONFIGS}/celery.yaml\n"
    wsgi_app = plaster.get_loader(str(write_ini(text))).get_wsgi_app()
    conf = get_tasks(wsgi_app.registry).app.conf
    assert conf.task_default_queue == "of the worker"


@pytest.mark.parametrize("uri", ["egg:exampleapp", "egg:exampleapp#main"])
@pytest.mark.usefixtures("distribution")
def test_egg_uri(uri, monkeypatch):
    """An application can be loaded from a distribution, without any file."""
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    app = get_celery_app(uri)
    assert "exampleapp.add" in app.tasks


@pytest.mark.usefixtures("distribution")
def test_egg_uri_without_tasks():
    """The errors are those of a file."""
    with pytest.raises(LoadError, match="does not include pyramid_tasks"):
        get_celery_app("egg:exampleapp#without_tasks")


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ("celry:main", "celery"),
        ("celerybeet:x", "celerybeat"),
        ("celryroute:x", "celeryroute"),
    ],
)
def test_misspelt_section(load, caplog, section, meant):
    """A section that is nearly one of Celery's is a warning, not silence."""
    load(f"{APP}[{section}]\n")
    assert f"config.ini, [{section}]: did you mean [{meant}:...]?" in caplog.text


def test_sections_of_others(load, caplog):
    """Sections that have nothing to do with Celery are left alone."""
    load(f"{APP}[server:main]\n[alembic]\n[cell:x]\n[celery:other]\n")
    assert "did you mean" not in caplog.text
