"""Mistakes in an ini: the check and the worker tell each in the same sentence."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import pytest
from celery import beat, signals
from celery.schedules import BaseSchedule
from support import logging_sections

from pyramid_tasks.exceptions import LoadError, SettingError, UnknownSetting
from pyramid_tasks.loaders.opening import open_app
from pyramid_tasks.scripts.problems import find_problems

SECRET = "s3cr3t"
APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
celery.result_backend = cache+memory://
"""
IT = APP.replace("[app:main]", "[app:it]")
NOW = "task = exampleapp.now\nschedule = 5\n"


def logged(old, new):
    """Return an ini that configures logging, with a mistake in the place of a text."""
    return (APP + logging_sections()).replace(old, new)


@pytest.fixture
def told(write_ini):
    """Return a function that checks an ini, and loads it as a worker does.

    The function returns what the check tells, without the path of the file, if the
    worker ends with the first of these sentences.
    """

    def told(text, **variables):
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


@pytest.fixture
def problem(write_ini):
    """Return a function that gives the one sentence of the check about an ini."""

    def problem(text, name="config.ini"):
        (found,) = find_problems(str(write_ini(text, name)), {})
        return f"{found['kind']}: {found['where']}: {found['message']}"

    return problem


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
            f"{APP}[celeryroute:*]\nque = slow",
            ", [celeryroute:*]: que is not an option of a route. Did you mean queue?",
        ),
        (
            f"{APP}[celeryroute:exampleapp.add]\npriority = high",
            ", [celeryroute:exampleapp.add]: priority = 'high' is not a whole number",
        ),
        *(
            (
                f"{APP}[celeryroute:exampleapp.add]\n{route}",
                f", [celeryroute:exampleapp.add]: {said}",
            )
            for route, said in [
                ("compression = gzp", "compression = gzp is not one of gzip,"),
                ("serializer = jsn", "serializer = jsn is not one of "),
                ("delivery_mode = 7", "delivery_mode = 7 is not one of 1, 2, "),
                ("exchange_type = topc", "exchange_type = topc is not one of direct"),
                ("priority = 256", "priority = 256 is not a whole number from 0 to"),
                ("expires = 60", "expires is not an option of a route."),
                ("queue = 5", "queue = 5 is not a name: put it in double quotes"),
                ("queue =", "queue is empty"),
            ]
        ),
        *(
            (
                (
                    f"{APP}[celerybeat:x]\ntask = exampleapp.now\nschedule = 5\n"
                    f"options = {{{options}}}"
                ),
                f", [celerybeat:x], options: {said}",
            )
            for options, said in [
                ('"countdwn": 3', "countdwn is no option. Did you mean countdown?"),
                ('"expires": "soon"', "expires = 'soon' is not a number of seconds, a"),
                ('"countdown": "5"', "countdown = '5' is not a number of seconds."),
                ('"queue": 5', "queue = 5 is not a name"),
                ('"headers": 5', "headers = 5 is not a dictionary."),
            ]
        ),
        *(
            (f"{APP}celery.{setting}", f", [app:main]: celery.{said}")
            for setting, said in [
                (
                    'task_annotations = {"*": {"rate_limit": "often"}}',
                    "task_annotations has for '*': rate_limit = often is not a rate",
                ),
                (
                    'task_routes = {"exampleapp.*": {"queue": 5}}',
                    "task_routes has a route for 'exampleapp.*': queue = 5 is not a na",
                ),
                (
                    'task_routes = {"exampleapp.*": 5}',
                    "task_routes has a route for 'exampleapp.*' that cannot be read: w",
                ),
                ("task_annotations = 5", 'task_annotations is no map: write {"*": {"'),
                ("beat_scheduler = lost.X", "beat_scheduler = lost.X cannot be im"),
                ("imports = lost.x", "imports names a module that is not there: 'los"),
                ("imports = .tasks", "imports names a module that is not there: '.ta"),
                (
                    'task_publish_retry_policy = {"x": 1}',
                    "task_publish_retry_policy has the key x, not one of errback, max",
                ),
                ('task_routes = [["ab"]]', "task_routes cannot be read as routes: w"),
                (
                    'task_queues = {"a": {"exchnge": "x"}}',
                    "task_queues has exchnge for 'a'. Did you mean exchange?",
                ),
                (
                    'beat_schedule = {"x": {"task": "a", "schedule": true}}',
                    "beat_schedule has an entry 'x' that cannot be read: schedule 'tru",
                ),
                (
                    'beat_schedule = {"x": {"task": "a", "schedule": {"hour": 3}}}',
                    "beat_schedule has an entry 'x' that cannot be read: schedule is a",
                ),
                (
                    'beat_schedule = {"x": {"task": "a", "schedule": 5, "kwarg": {}}}',
                    "beat_schedule has an entry 'x' that cannot be read: it has kwarg.",
                ),
                (
                    (
                        'beat_schedule = {"x": {"task": "a", "schedule": 5, "options": '
                        '{"queue": 5}}}'
                    ),
                    "beat_schedule has an entry 'x' that cannot be read: options has q",
                ),
            ]
        ),
        (
            f"{APP}pyramid.includes =\n  pyramid_tm\n  pyramid_tsk",
            (
                ", [app:main], pyramid.includes: there is no module pyramid_tsk. Did "
                "you mean pyramid_tasks?"
            ),
        ),
        (
            APP.replace("call:exampleapp:main", "egg:nosuch"),
            ", [app:main], use = egg:nosuch: no distribution nosuch is installed.",
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
            "[app:main]\nfilter-with = x\npaste.app_factory = missing.module:x",
            ", [app:main], paste.app_factory = missing.module:x: No module named 'mi",
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
            ", [app:main]: celery.result_expires = 'None' is not a number (float);",
        ),
        (
            f"{APP}pyramid_tasks.gc_freeze = maybe",
            ", [app:main]: pyramid_tasks.gc_freeze = 'maybe' is not a boolean",
        ),
        (
            f"{APP}pyramid_tasks.inbox = true",
            ", [app:main]: pyramid_tasks.inbox = true, but no task has a transaction",
        ),
        (
            f'{APP}celery.beat_schedule = {{"a": {{"task": "b", "schedule": {{}}}}}}',
            (
                ", [app:main]: celery.beat_schedule has an entry 'a' that cannot be "
                "read: schedule is missing."
            ),
        ),
        (
            f"{APP}celery.task_serializer = pickle",
            (
                ", [app:main]: celery.task_serializer = pickle is what "
                "celery.accept_content refuses: write json, or celery.accept_content ="
            ),
        ),
        (
            (
                f"{APP}celery.result_serializer = yaml\n[celery:main]\n"
                "result_accept_content = json application/text"
            ),
            (
                ", [app:main]: celery.result_serializer = yaml is what "
                "result_accept_content refuses: write"
            ),
        ),
        (
            f"{APP}celery.task_ignore_result = true\ncelery.accept_content = pickle",
            (
                ", [app:main]: celery.accept_content refuses json, the default of "
                "celery.task_serializer: write celery.accept_content = pickle json."
            ),
        ),
        (
            f"{APP}celery.accept_content = application/jsn",
            ", [app:main]: celery.accept_content has 'application/jsn', which is not",
        ),
        (
            f"{APP}celery.worker_log_format = %%(mesage)s %%(own)s",
            (
                ", [app:main]: celery.worker_log_format has the unknown field mesage. "
                "Did you mean message?"
            ),
        ),
        (
            f"{APP}celery.result_expires = -1",
            ", [app:main]: celery.result_expires = -1.0 is not a number of at least 0.",
        ),
        (
            f'{APP}celery.database_table_names = {{"tsk": "x"}}',
            ", [app:main]: celery.database_table_names has tsk = x: write a name",
        ),
        (
            APP.replace(" memory", " reds"),
            (
                ": The broker reds:/// cannot be used: No such transport: reds. Did "
                "you mean redis? Is its name right"
            ),
        ),
        (APP.replace("broker", "broker_read"), " names no broker to send to. Set "),
        (APP.replace("broker", "broker_write"), " names no broker to read from. Set "),
        (
            f"{APP}celery.broker_write_url = reds://",
            ": The broker reds:/// cannot be used: No such transport: reds. Did you me",
        ),
        (
            APP.replace("cache+memory", "db+sqlit"),
            ", [app:main]: celery.result_backend is of no database that SQLAlchemy kno",
        ),
        (
            APP.replace("cache+memory://", "db+sqlite:///nowhere/x.db"),
            ", [app:main]: celery.result_backend is in a folder that is not there: now",
        ),
        (
            (
                APP.replace("cache+memory", "db+sqlite")
                + 'celery.database_engine_options = {"eco": true}'
            ),
            (
                ", [app:main]: celery.database_engine_options cannot be used: Invalid "
                "argument(s) 'eco' sent to create_engine()."
            ),
        ),
        (
            logged("handlers = console", "handlers = console,"),
            ", [logger_root] handlers has a comma too many.",
        ),
        (
            logged("keys = console", "keys = console,"),
            ", [handlers] keys has a comma too many.",
        ),
        (
            logged("StreamHandler", "x.Y"),
            ", [handler_console] class = x.Y cannot be imported: there is no module x.",
        ),
        (
            logged("StreamHandler", "StreamHandlr"),
            (
                ", [handler_console] class = StreamHandlr is not one of "
                "BufferingFormatter, FileHandler, Formatter, Handler, NullHandler, "
                "StreamHandler, or a dotted name. Did you mean StreamHandler?"
            ),
        ),
        (
            logged("stderr", "stder"),
            ", [handler_console] args cannot be read: module 'sys' has no attribute",
        ),
        *(
            (
                logged("sys.stderr", given),
                f", [handler_console] args cannot be read as Python ({error}): put",
            )
            for given, error in [("'\0'", "SyntaxError"), ("pass1word", "NameError")]
        ),
        (
            logged("StreamHandler", "handlers.SocketHandler").replace(
                "sys.stderr", "'h', 'x' * 'pass1word'"
            ),
            ", [handler_console] args cannot be read as Python (TypeError): put",
        ),
        (logged("INFO", "INF"), ", [logger_root] level = INF is not one of "),
        (
            logged("handlers = console", "handlers = consol"),
            ", [logger_root] handlers = consol is not one of console. Did you mean",
        ),
        (logged("[handlers]\nkeys = console\n", ""), ", [handlers] keys is missing."),
        (
            logged("keys = root", "keys ="),
            ", [loggers] keys has no root: add root, ",
        ),
        (
            logged("handlers = console\n", ""),
            ", [logger_root] handlers is missing; it may be empty.",
        ),
        (
            logged("class = StreamHandler\n", ""),
            ", [handler_console] class is missing.",
        ),
        (
            logged("StreamHandler", "handlers.MemoryHandler\ntarget = consol").replace(
                "sys.stderr", "10"
            ),
            ", [handler_console] target = consol is not one of console. Did you mean",
        ),
        (
            logged("[formatter_generic]", "[formatter_generic]\nclass = x.Y"),
            ", [formatter_generic] class = x.Y cannot be imported: there is no module",
        ),
        (
            APP + logging_sections("plain"),
            ", [formatter_generic] format cannot be used: ",
        ),
        (
            logged("= root", "= root, x") + "[logger_x]\nhandlers =\n",
            ", [logger_x] qualname is missing.",
        ),
        (
            logged("= root", "= root, x")
            + "[logger_x]\nqualname = x\nhandlers =\npropagate = no\n",
            ", [logger_x] propagate = no is not 0 or 1.",
        ),
        (
            logged("StreamHandler", "FileHandler"),
            ", [handler_console] args cannot be used for FileHandler: expected str, ",
        ),
        (
            logged("StreamHandler", "handlers.HTTPHandler").replace(
                "sys.stderr", "'host', '/', 'pass1word'"
            ),
            ", [handler_console] args cannot be used for handlers.HTTPHandler: ValueEr",
        ),
        (
            logged("formatter = generic", "formatter = genric"),
            ", [handler_console] formatter = genric is not one of generic.",
        ),
    ],
)
def test_mistakes(told, text, said):
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
        f"amqp://user:123/{SECRET}@localhost",
        f"redis://:{SECRET}#x@localhost",
        f"redis://:x;{SECRET}@localhost",
        f"redis://:{SECRET}[@localhost",
        f"redis://:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost/name",
        f"amqp://:{SECRET}/@localhost",
        f"db+postgresql://user:{SECRET}/x@localhost/db",
        f"redis://:{SECRET}@[::1",
        f'"redis://:{SECRET}@localhost"',
        f"'amqp://u:{SECRET}@localhost//'",
        f"redis//:{SECRET}@localhost",
        f"redis:{SECRET}@localhost:6379/13",
        f"redis://localhost; redis://:{SECRET}@localhost",
        f"sqs;redis://:{SECRET}@localhost/x",
        f"redis+x://:{SECRET}@localhost/x",
    ],
)
def test_address_that_cannot_be_read(told, web, tmp_path, url, name):
    """A worker, the check and a web process tell so, and show no part of it."""
    text = f"{APP.replace(f'celery.{name} = ', '# ')}celery.{name} = {url}\n"
    (sentence,) = told(text)
    assert sentence.startswith(f", [app:main]: celery.{name} ")
    faults = "is not a URL", "a database that is not a number", "does not begin as a"
    assert any(fault in sentence for fault in faults)
    assert SECRET not in sentence
    with pytest.raises(SettingError) as caught:
        web(text)
    assert str(caught.value) == f"{tmp_path}/config.ini{sentence}"


@pytest.mark.parametrize(
    ("line", "module", "package"),
    [
        ("event_serializer = msgpack", "msgpack", "msgpack"),
        ("event_serializer = yaml", "yaml", "pyyaml"),
        ("worker_pool = eventlet", "eventlet", "eventlet"),
        ("worker_pool = gevent", "gevent", "gevent"),
    ],
)
def test_package_that_is_missing(told, line, module, package):
    """What needs it is told with the name of the package."""
    if find_spec(module):
        pytest.skip(f"{module} is installed")
    said = f", [app:main]: celery.{line} needs a package: pip install {package}."
    assert told(f"{APP}celery.{line}\n") == [said]


@pytest.mark.parametrize("name", ["None", "null", "redis:localhost", "a/b"])
def test_broker_without_a_scheme(told, name):
    """It is the name of a host, or no address."""
    (sentence,) = told(APP.replace(" memory://", f" {name}"))
    assert sentence.startswith(", [app:main]: celery.broker_url does not begin as a")


@pytest.mark.parametrize(
    "key",
    [
        *("celery.imports", "celery.timezone", "celery.task_serializer"),
        *("celery.broker_failover_strategy", "celery.broker_transport"),
        *("celery.broker_pool_limit", "celery.worker_pool", "celery.beat_schedule"),
        *("pyramid_tasks.delivery", "pyramid_tasks.outbox_send"),
        *("pyramid_tasks.context", "pyramid_tasks.inbox_keep", "pyramid_tasks.inbox"),
        *("pyramid_tasks.base_url", "pyramid_tasks.outbox_lease"),
    ],
)
@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@h", f"https://h?password={SECRET}"]
)
def test_address_in_another_setting(told, key, url):
    """The sentence shows no part of it."""
    (sentence,) = told(f"{APP}{key} = {url}\n")
    assert sentence.startswith(f", [app:main]: {key} ")
    assert SECRET not in sentence


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("celery.task_compression = gzp", "celery.task_compression = gzp is not"),
        (
            "pyramid_tasks.delivery = outbx",
            (
                "pyramid_tasks.delivery = outbx is not one of the known deliveries: "
                "immediate. Include pyramid_tasks.contrib.pyramid_tm for the others."
            ),
        ),
        ("pyramid_tasks.context = hst", "pyramid_tasks.context = hst is not one of"),
        ("pyramid_tasks.base_url = x", "pyramid_tasks.base_url = x "),
        ("pyramid_tasks.gc_freeze = maybe", "pyramid_tasks.gc_freeze = 'maybe' is not"),
    ],
)
@pytest.mark.parametrize("name", ["main", "inner"])
def test_web_process(web, tmp_path, name, line, said):
    """The error is the sentence alone, with the file and the section."""
    text = f"{APP}{line}\n"
    if name == "inner":
        text = text.replace("[app:main]", "[app:inner]")
        text += "[composite:main]\nuse = call:exampleapp:both\nx = inner\n"
    with pytest.raises(SettingError) as caught:
        web(text)
    assert str(caught.value).startswith(f"{tmp_path}/config.ini, [app:{name}]: {said}")
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_web_process_without_a_driver(web, tmp_path):
    """A process that reads no results needs no driver of their database.

    Nor does it make tables there.
    """
    assert web(APP.replace("cache+memory", "db+sqlit"))
    app = web(APP.replace("cache+memory://", f"db+sqlite:///{tmp_path}/results"))
    assert app.backend
    assert not (tmp_path / "results").exists()


def test_tables_of_results(opened, tmp_path):
    """To open an application makes none; a worker may make them as it starts."""
    app = opened(APP.replace("cache+memory://", f"db+sqlite:///{tmp_path}/results"))
    assert not (tmp_path / "results").exists()
    assert app.conf.get("database_create_tables_at_setup") is not False


def test_warning_in_a_web_process(web, tmp_path, caplog):
    """A warning has the file and the section too, of the worker's settings as well."""
    text = f"{APP}celery.one = 1\npyramid_tasks.config_uri = %(__file__)s\n"
    web(f"{text}[celery:main]\ntwo = 2\ntimezone = UTC\n")
    ini = f"{tmp_path}/config.ini"
    assert f"{ini}, [app:main]: celery.one is not a setting" in caplog.text
    assert f"{ini}, [celery:main]: two is not a setting" in caplog.text


@pytest.mark.parametrize("name", ["beat_schedule_filename", "worker_state_db"])
def test_file_that_cannot_be_written(problem, name):
    """The check tells of the folder; another scheduler keeps no file."""
    text = f"{APP}celery.{name} = /nowhere/x\n"
    assert f"celery.{name} = /nowhere/x is in a folder that is not" in problem(text)


def test_file_of_another_scheduler(write_ini):
    """Only Celery's own scheduler of beat keeps a file."""
    text = f"{APP}celery.beat_schedule_filename = /nowhere/x\n"
    ini = write_ini(f"{text}celery.beat_scheduler = celery.beat:Scheduler\n")
    assert find_problems(str(ini), {}) == []


def test_what_the_check_tells(problem):
    """It tells of the path, of results nobody finds, and how to leave out names."""
    said = problem(APP, "a%b.ini")  # about the path, and not about a value in the file
    assert "the path of the file has a percent sign" in said
    said = problem(APP.replace("cache+memory", "rpc"))
    assert "request.get_task_result() finds none" in said
    said = problem(f"{APP}celery.someplugin_key = 1\n")
    assert said.startswith(f"{UnknownSetting.__name__}: ")
    assert said.endswith("out with --ignore 'someplugin_*'.")
    for name in "someplugin", "Someplugin_key", "task_key":
        assert "--ignore" not in problem(f"{APP}celery.{name} = 1\n")


@pytest.mark.parametrize("variable", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"redis://:{SECRET}/x@h", "the environment: $ is not a URL: "),
        (f'"redis://:{SECRET}@h"', "the environment: $ does not begin as a URL does"),
        (f"reds://:{SECRET}@h", "the environment, $: The "),
    ],
)
def test_address_in_the_environment(told, monkeypatch, variable, url, said):
    """The sentence names the variable, and no file."""
    monkeypatch.setenv("CELERY_OTHER", "x")
    monkeypatch.setenv(variable, url)
    (sentence,) = told(APP)
    assert sentence.startswith(said.replace("$", variable))
    assert SECRET not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%%2F@localhost:6379/1",
        "redis+socket:///tmp/redis.sock?virtual_host=1",
        "sentinel://:pw@one:26379;sentinel://two:26379/1",
        "db+sqlite:///a@b.sqlite",
        "rpc://",
        "redis://localhost:6379/1?",
    ],
)
def test_address_that_can_be_read(opened, url):
    """Every form that Celery reads is left to Celery."""
    master = "celery.result_backend_transport_options.master_name = main"
    app = opened(f"{APP.replace('cache+memory://', url)}{master}\n")
    assert app.conf.result_backend == url.replace("%%", "%")


def test_logfile_that_cannot_be_written(opened):
    """A worker ends with one sentence if it cannot write to it."""
    opened(APP + logging_sections())
    with pytest.raises(SystemExit, match="logfile = /nowhere/x cannot be written to"):
        signals.setup_logging.send(None, logfile="/nowhere/x")


def test_logfile_with_another_name(opened, tmp_path):
    """A child of the pool, whose number is in the name, leaves no other file open."""
    opened(APP + logging_sections())
    files = []
    for name in "ab":
        signals.setup_logging.send(None, logfile=tmp_path / name)
        files.append(logging.root.handlers[-1].stream)
    signals.setup_logging.send(None)
    assert all(file.closed for file in files)


def test_import_error_inside_a_handler(problem, capsys):
    """An error of the application's own code keeps its traceback."""
    said = problem(logged("StreamHandler", "failing_import.Handler"))
    assert "see the traceback above" in said
    assert "No module named 'missing_dependency'" in capsys.readouterr().err


def test_attribute_error_inside_a_handler(problem, capsys, tmp_path, monkeypatch):
    """So does an attribute that the module of the handler looks up in vain."""
    (tmp_path / "lost_attribute.py").write_text("import sys\n\nsys.lost\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = problem(logged("StreamHandler", "lost_attribute.Handler"))
    assert "see the traceback above" in said
    assert "module 'sys' has no attribute 'lost'" in capsys.readouterr().err


# What is only a warning for a worker.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{APP}[timezone]\n", "did you mean timezone = VALUE in [celery:main]"),
        *(
            (f"{APP}[{section}]\n", "mean broker_transport_options.KEY = VALUE in [")
            for section in (
                "broker_transport_option",
                "celery_broker_transport_options",
                "celery.broker_transport_options",
            )
        ),
        *(
            (f"{APP}[{section}]\n", "did you mean pyramid_tasks.KEY = VALUE in the s")
            for section in ("pyramid_tasks", "pyramid_task", "pyramid-tasks")
        ),
        (
            f"{APP}[DEFAULT]\npyramid_tasks.gc_freeze = false\n",
            "[DEFAULT]: pyramid_tasks.gc_freeze reaches no application. Write it in",
        ),
        (
            f"[DEFAULT]\ncelery.timezone = UTC\n{APP}celery.timezone = Asia/Tokyo\n",
            "Write it in the section of the application, and not here.",
        ),
        *(
            (
                f"[DEFAULT]\nname = 1\nqueue = a\n{APP}[{section}]\nqueue = b\n",
                f"[{section}]: queue is left out, as [DEFAULT] or a variable has the s",
            )
            for section in ("celery", "celery:emails")
        ),
        (
            f"{APP}celery.TIMEZONE = UTC\ncelery.timezone = UTC\n",
            "celery.TIMEZONE is celery.timezone in another spelling, which wins",
        ),
        (f"{APP}[celerybeat]\n", "[celerybeat]: did you mean [celerybeat:...]?"),
        (f"{APP}[celeryd:x]\n", "[celeryd:x]: did you mean [celery:...]?"),
        (f"{APP}[celry:main]\n", "[celry:main]: did you mean [celery:...]?"),
        (f"{APP}[celerybeet:x]\n", "[celerybeet:x]: did you mean [celerybeat:...]?"),
        (f"{APP}[celryroute:x]\n", "[celryroute:x]: did you mean [celeryroute:...]?"),
        (f"{APP}[celery]\nworker_pol = solo\n", "Did you mean worker_pool?"),
        (
            f"{APP}[celery]\nUSE_CELERYCONFIG = True\n",
            "USE_CELERYCONFIG is not a setting: no celeryconfig.py is read. Write the",
        ),
        (
            f"{APP}[celery]\npyramid_tasks.inbox = true\n",
            "pyramid_tasks.inbox is read in the section of the application, and not he",
        ),
        (
            f"{APP}[celery:main]\ncelery.worker_pool = solo\n",
            "celery.worker_pool is no setting in [celery:NAME], where the prefix is le",
        ),
        (
            f"{APP}[celery:main]\nplugin_url = x\n[celery:other]\nplugin_key = x\n",
            "plugin_url is not a setting that this version of Celery knows; it is pass",
        ),
        (
            logged("formatter = ", "formater = "),
            "[handler_console] formater: did you mean formatter?",
        ),
        (
            APP + logging_sections("%(mesage)s"),
            "[formatter_generic] format has the unknown field mesage. Did you mean mes",
        ),
    ],
)
def test_warnings(problem, opened, caplog, capsys, text, said):
    """The check tells it, and the worker logs it."""
    assert said in problem(text)
    opened(text)
    assert said in caplog.text + capsys.readouterr().err


def test_variables_in_the_defaults(write_ini):
    """There is no problem if a section takes them."""
    defaults = "[DEFAULT]\ncelery.zone = UTC\ncelery.pool = solo\n"
    taken = "celery.timezone = %(celery.zone)s\nget celery.worker_pool = celery.pool\n"
    assert find_problems(str(write_ini(defaults + APP + taken)), {}) == []


# What takes effect.


def test_case_of_a_setting(opened):
    """Older packages ignore the case; the name in small letters wins."""
    app = opened(
        f"{APP}[celery]\nRESULT_EXPIRES = 5\nWorker_Concurrency = 3\n"
        "TIMEZONE = Europe/Paris\ntimezone = Europe/Berlin\n"
    )
    assert (app.conf.result_expires, app.conf.worker_concurrency) == (5, 3)
    assert app.conf.timezone == "Europe/Berlin"


def test_schedule_as_json(opened, tmp_path):
    """Beat reads the entries of beat_schedule in each form of [celerybeat:NAME]."""
    app = opened(
        f"""{APP}celery.beat_schedule =
            {{"a": {{"task": "exampleapp.now", "schedule": "0 3 * * *"}},
              "b": {{"task": "exampleapp.now", "schedule": 30}},
              "c": {{"task": "exampleapp.now", "type": "crontab",
                     "schedule": {{"hour": 3}}}}}}
        """
    )
    service = beat.Service(app, schedule_filename=str(tmp_path / "beat"))
    entries = service.scheduler.schedule
    assert all(isinstance(entries[name].schedule, BaseSchedule) for name in "abc")
    assert find_problems(f"{tmp_path}/config.ini", {}) == []


def test_variables_are_values(write_ini, opened):
    """A percent sign needs no second one, in an included file neither."""
    write_ini(f"{APP}x.one = %(one)s\nx.two = %(two)s\n", "base.ini")
    text = "[DEFAULT]\ntwo = k%%2Fey\n[app:main]\nuse = config:base.ini\n"
    for value in "k%2Fey", "k%%2Fey":
        settings = opened(text, one=value).registry.settings
        assert (settings["x.one"], settings["x.two"]) == ("k%2Fey", "k%2Fey")


@pytest.mark.parametrize("given", ["", "'%(share)s' and "])
def test_mistake_in_logging_beside_a_percent_sign(write_ini, given):
    """A percent sign in a variable, of a URI as well, hides no mistake."""
    ini = write_ini(logged("INFO", "INF").replace("sys.stderr", f"{given}sys.stderr"))
    for uri, variables in (ini, {"share": "50%"}), (f"{ini}?share=50%25", None):
        with pytest.raises(LoadError, match="level = INF is not one of "):
            open_app(str(uri), variables=variables)


def test_misspelt_secret(opened):
    """``celery report`` does not show it."""
    app = opened(f"{APP}celery.broker_pasword = {SECRET}\n")
    assert SECRET not in app.bugreport()


def test_web_process_makes_no_tables(web, tmp_path):
    """A process that only sends does not open the database of the results."""
    url = f"db+sqlite:///{tmp_path}/results.sqlite"
    web(APP.replace("cache+memory://", url)).backend  # noqa: B018 made when it is read
    assert not (tmp_path / "results.sqlite").exists()


def test_web_process_leaves_the_worker_alone(web):
    """It does not import what only a worker does."""
    app = web(f"{APP}celery.imports = nosuchmod\ncelery.worker_pool = nosuchmod:Pool\n")
    assert app.conf.imports == ["nosuchmod"]


# YAML, in which a value need not be text.

YAML = """
app:
  use: egg:exampleapp
  celery.broker_url: memory://
  celery.result_backend: cache+memory://
"""
LOGGING = "logging: {version: 1, handlers: {x: {class: logging.Lost}}}\n"


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " has no sections"),
        ("app: [1, 2]\n", ", section 'app' has no settings"),
        ("app:\n  a: b\n", ": 'use' is missing."),
        *(
            (
                f"{YAML}celery:\n  a: '%(here)s/{value}'\n",
                ", section 'celery' has a value with %(here)s and another percent sign",
            )
            for value in ["%(port)s", "%d", "100%"]
        ),
        (f"{YAML}logging: {{handlers: {{}}}}\n", "doesn't specify a version."),
        ("app:\n  use: call:x:y\n", ": Entrypoint paste.app_factory is missing for"),
        (f"{YAML}celery:\n", ", section 'celery' has no settings"),
        (f"{YAML}  celery: {{timezone: UTC}}\n", ': "celery.timezone".'),
        (f"{YAML}  celery: {{nothing: 1}}\n", ': "celery.KEY".'),
        (
            f"{YAML}  pyramid_task: {{gc_freeze: true}}\n",
            (
                ", section 'app': pyramid_task nests its keys, so that nobody reads "
                'them. Write each in full: "pyramid_tasks.gc_freeze".'
            ),
        ),
        (f"{YAML}'celerybeat:n': {{task: x}}\n", "'celery', below beat_schedule."),
        (f"{YAML}celeryroute: {{x: y}}\n", "'celery', below task_routes."),
        (f"{YAML}celeryy: {{a: 1}}\n", ", section 'celeryy': did you mean 'celery'?"),
        (f"{YAML}celry: {{a: 1}}\n", ", section 'celry': did you mean 'celery'?"),
        (f"{YAML}timezone: UTC\n", "did you mean timezone in the section 'celery'?"),
        (f"{YAML}pyramid_tasks: {{}}\n", 'did you mean "pyramid_tasks.KEY" in the'),
        (f"{YAML}celery: {{3: 4}}\n", ", section 'celery': 3 is not a setting that"),
        (
            YAML + LOGGING,
            ": Unable to configure handler 'x': Cannot resolve 'logging.Lost': ",
        ),
        *(
            (f"{YAML}  {line}\n", f", section 'app': {line.replace(':', ' =', 1)} is")
            for line in [
                "pyramid_tasks.base_url: 5",
                "pyramid_tasks.context: ['host', 3]",
                "pyramid_tasks.context: 3",
                "pyramid_tasks.delivery: ['commit']",
                "pyramid_tasks.gc_freeze: 3",
                "pyramid_tasks.inbox: [1]",
                "pyramid_tasks.outbox_lease: [1]",
                "pyramid_tasks.max_deliveries: x",
                "pyramid_tasks.outbox_schema: {'a': 1}",
                "pyramid_tasks.outbox_send: 3",
                "celery.accept_content: 3",
                "celery.beat_schedule: 5",
                "celery.broker_transport_options: 5",
                "celery.broker_use_ssl: 5",
                "celery.imports: 5",
                "celery.task_acks_late: 7",
                "celery.task_time_limit: [1]",
                "celery.worker_concurrency: 1.5",
                "celery.worker_pool: 3",
            ]
        ),
        (f"{YAML}  celery.task_time_limit: true\n", "limit = True is not a number"),
        (f"{YAML}  celery.timezone: 2024-01-01\n", "is not a string: put it in quot"),
        (f"{YAML}  pyramid_tasks.outbox_lease: true\n", "= True is not a number."),
        (f"{YAML}  celery.redis_password: 1234\n", "= ******** is not a string"),
        (f"{YAML}  celery.task_routes: {{5: a}}\n", "has a route for 5, which is no n"),
        (YAML.replace("cache+memory://", "5"), "result_backend = 5 is not a string"),
        (YAML.replace(" memory://", " 5"), "broker_url = 5 is not a string: put it in"),
        (
            YAML.replace(" memory://", " [5]"),
            "celery.broker_url does not begin as a URL",
        ),
    ],
)
def test_mistakes_in_yaml(write_ini, capsys, text, said):
    """Each is one sentence, without a traceback."""
    (found,) = find_problems(str(write_ini(text, "config.yaml")), {})
    assert said in f"{found['where'] or ''}: {found['message']}"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("distribution")
def test_values_of_yaml(write_ini):
    """Values of the right types are taken, and text as in an ini.

    A section of another package may have keys with the names of settings.
    """
    text = f"""{YAML}  pyramid_tasks.context: [host]
  locale: {{timezone: UTC}}
  pyramid_tasks.gc_freeze: true
celery:
  accept_content: [json]
  broker_transport_options: {{visibility_timeout: 5}}
  task_acks_late: 1
  task_time_limit: 5
  worker_concurrency: "3"
  task_ignore_result: yes
"""
    path = str(write_ini(text, "config.yaml"))
    assert find_problems(path, {}) == []
    assert open_app(path).conf.worker_concurrency == 3
