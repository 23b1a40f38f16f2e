"""Strings of an ini file become the configuration of Celery."""

from __future__ import annotations

import logging
import re
import traceback
from datetime import timedelta
from pathlib import Path

import celery.bin.base
import plaster
import pytest
from celery import Celery
from celery.app.defaults import _TO_NEW_KEY, NAMESPACES, flatten
from pyramid.exceptions import ConfigurationError

from pyramid_tasks import PyramidTasksError
from pyramid_tasks._celery import SETTING_TYPES
from pyramid_tasks.coercion import TYPES
from pyramid_tasks.configuration.own_settings import NUMBERS
from pyramid_tasks.configuration.unknown_settings import unknown_settings
from pyramid_tasks.exceptions import SettingError
from pyramid_tasks.settings import (
    coerce_settings,
    extract_celery_settings,
    merge_settings,
)

OPTIONS = dict(flatten(NAMESPACES))
TRUE = ["true", "True", "t", "yes", "y", "on", "1", " on "]
FALSE = ["false", "FALSE", "f", "no", "n", "off", "0", ""]


def coerce(key, value):
    """Coerce one setting, and give back its value."""
    (found,) = coerce_settings({key: value}).values()
    return found


def problem(**settings):
    """Return the error about settings, and what it says."""
    prefixed = {f"celery.{key}": value for key, value in settings.items()}
    with pytest.raises(SettingError) as caught:
        extract_celery_settings(prefixed)
    return caught.value


# What is read, and what is not.


def test_takes_what_has_the_prefix():
    """Settings of Pyramid and of other packages are left alone."""
    settings = {
        "pyramid.includes": "pyramid_tasks",
        "celery": "not a setting",
        "celery.broker_url": "redis://",
        "mycelery.broker_url": "other://",
        "pyramid_tasks.config_uri": "x.ini",
    }
    assert extract_celery_settings(settings) == {"broker_url": "redis://"}
    assert extract_celery_settings({}) == {}


def test_input_is_not_changed():
    """The function is pure: the settings of the application stay as they were."""
    options = {"visibility_timeout": 1}
    settings = {
        "celery.broker_transport_options": options,
        "celery.task_publish_retry_policy.max_retries": "3",
    }
    before = dict(settings)
    extract_celery_settings(settings)
    assert settings == before
    assert options == {"visibility_timeout": 1}


# Types.


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("task_default_rate_limit", "10/m", "10/m"),
        ("broker_connection_retry_on_startup", "false", False),
        ("worker_concurrency", "4", 4),
        ("worker_concurrency", "auto", "auto"),
        ("accept_content", "json, pickle", ["json", "pickle"]),
        ("imports", "a.tasks b.tasks", ["a.tasks", "b.tasks"]),
        ("task_routes", '{"app.*": {"queue": "x"}}', {"app.*": {"queue": "x"}}),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
        ("broker_url", "redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("result_expires", "3600", 3600.0),
        ("broker_heartbeat", "10", 10),
        ("task_default_priority", "5", 5),
        ("worker_pool", "threads", "threads"),
        ("security_key_password", "geheim ä", "geheim ä".encode()),
        ("task_default_queue", "null", "null"),
        ("cassandra_auth_kwargs", '{"username": "x"}', {"username": "x"}),
        ("cassandra_port", "9043", 9043),
        ("broker_use_ssl", "true", True),
        ("broker_use_ssl", "off", False),
        ("broker_use_ssl", '{"ssl_cert_reqs": 2}', {"ssl_cert_reqs": 2}),
        # Where Celery declares no type, a string that is JSON is read as JSON.
        ("task_queues", '\n{\n"a.*":\n  {"queue": "x"}\n}', {"a.*": {"queue": "x"}}),
        ("task_annotations", "8", 8),
        ("task_annotations", "1.5", 1.5),
        ("task_annotations", "word", "word"),
        ("task_annotations", "10/m", "10/m"),
        ("task_annotations", '"8"', "8"),
        ("task_annotations", "true", True),
        ("task_annotations", '{"a": [1, null]}', {"a": [1, None]}),
        # The words that Pyramid's asbool takes for true are true, and others false.
        *(("task_acks_late", text, True) for text in TRUE),
        *(("task_acks_late", text, False) for text in FALSE),
    ],
)
def test_strings_of_an_ini(key, text, value):
    """A string has the type that Celery declares for the setting."""
    found = coerce(key, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("broker_transport_options.visibility_timeout", "3600", 3600),
        ("broker_transport_options.queue_name_prefix", '"123"', "123"),
        ("broker_transport_options.queue_name_prefix", "a-", "a-"),
        ("broker_transport_options.fanout_prefix", "true", True),
        ("broker_transport_options.fanout_prefix", "True", "True"),
        ("broker_transport_options.region", "null", None),
        ("broker_transport_options.socket_timeout", "1.5", 1.5),
        ("broker_transport_options.hosts", '["a", "b"]', ["a", "b"]),
        ("broker_transport_options.master", '{"name": "m"}', {"name": "m"}),
        ("broker_transport_options.empty", "", ""),
        ("redis_backend_use_ssl.ssl_cert_reqs", "required", "required"),
        ("broker_use_ssl.ca_certs", "/etc/ca.pem", "/etc/ca.pem"),
        ("task_annotations.rate_limit", "10/s", "10/s"),
    ],
)
def test_dots_nest(key, text, value):
    """What follows a dot is a key of the dictionary, read as JSON if it is JSON."""
    name, below = key.split(".")
    found = coerce_settings({key: text})
    assert found == {name: {below: value}}
    assert type(found[name][below]) is type(value)


@pytest.mark.parametrize("key", ["accept_content", "imports", "include"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n ", []),
        (" , ", []),
        ("\t", []),
        ("json", ["json"]),
        ("json pickle", ["json", "pickle"]),
        ("json,pickle", ["json", "pickle"]),
        ("json, pickle,", ["json", "pickle"]),
        ("\njson\npickle\n", ["json", "pickle"]),
        ("\njson,\n    pickle", ["json", "pickle"]),
        ('["json", "pickle"]', ["json", "pickle"]),
        ("[]", []),
    ],
)
def test_lists(key, text, words):
    """Lists and tuples are words, parted by spaces, commas or lines, or JSON."""
    assert coerce(key, text) == words


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_of_celery_has_a_type(name):
    """Each can be read: a declared int as one, a dict from JSON and nested."""
    option = OPTIONS[name]
    declared = option.type if isinstance(option.type, str) else option.type.__name__
    assert declared in {*TYPES, "str"}
    assert SETTING_TYPES[name] in TYPES
    if declared == "int":
        assert coerce(name, "7") == 7
    if declared == "dict":
        assert coerce(name, '{"a": 1}') == coerce(f"{name}.a", "1") == {"a": 1}


# Values that are not strings.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("worker_concurrency", 4),
        ("task_acks_late", True),
        ("accept_content", ("json",)),
        ("task_routes", [lambda *_args, **_options: None]),
        ("result_expires", timedelta(days=1)),
        ("result_expires", None),
        ("broker_transport_options", {"max_retries": "3"}),
        ("broker_transport_options.retry_errors", (OSError,)),
        ("worker_concurrency", object()),
    ],
)
def test_other_values_are_kept(key, value):
    """Settings that Python code built pass through untouched."""
    found = coerce(key, value)
    if "." in key:
        found = found[key.rpartition(".")[2]]
    assert found is value


NULLABLE = ["worker_concurrency", "task_acks_late", "accept_content", "result_expires"]
NULLABLE += ["task_routes", "broker_transport_options", "broker_use_ssl"]


@pytest.mark.parametrize("key", NULLABLE)
@pytest.mark.parametrize("text", ["null", " null "])
def test_null(key, text):
    """The word null unsets a setting of any type but a string."""
    assert coerce(key, text) is None


# Errors.


def test_error_names_key_value_and_type():
    """A value of the wrong type is refused with all there is to know about it."""
    error = problem(result_expires="1 day")
    assert isinstance(error, ConfigurationError)
    assert isinstance(error, PyramidTasksError)
    assert error.key == "celery.result_expires"
    assert error.source is None
    assert str(error) == "celery.result_expires = '1 day' is not a number (float)"


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("worker_max_tasks_per_child", "many", "a whole number (int)"),
        ("worker_max_tasks_per_child", "1.5", "a whole number (int)"),
        ("worker_max_tasks_per_child", "", "a whole number (int)"),
        ("task_default_priority", "high", "a whole number (int)"),
        ("task_time_limit", "1h", "a number (float)"),
        ("result_expires", "None", "a number (float); write null for no value"),
        ("beat_cron_starting_deadline", "soon", "a whole number (int)"),
        ("task_acks_late", "maybe", "a boolean (true or false)"),
        ("task_acks_late", "2", "a boolean (true or false)"),
        ("broker_use_ssl", "perhaps", "a boolean or a JSON object"),
        ("broker_use_ssl", "{broken", "a boolean or a JSON object"),
        ("broker_transport_options", "visibility_timeout=3600", "a dictionary"),
        ("broker_transport_options", "[1]", "a dictionary"),
        ("broker_transport_options", "3", "a dictionary"),
        ("accept_content", '["json"', "a list (words, or a JSON array)"),
        ("task_routes", "{'a': 1}", "JSON or a string"),
        ("task_annotations", "[1,", "JSON or a string"),
        ("broker_transport_options", "{1}", "line 1 column 2"),
        ("broker_transport_options.hosts", "[a, b]", "'[a, b]' is not JSON or a strin"),
    ],
)
def test_wrong_types(key, text, expected):
    """Each type refuses what it is not, and says what it is."""
    error = problem(**{key: text})
    assert error.key == f"celery.{key}"
    assert expected in str(error)
    assert repr(text) in str(error)


def test_error_without_prefix():
    """In [celery:main] the key is shown as it stands there."""
    with pytest.raises(SettingError) as caught:
        coerce_settings({"worker_max_tasks_per_child": "x"})
    assert str(caught.value).startswith("worker_max_tasks_per_child = 'x'")


@pytest.mark.parametrize(
    ("key", "type_"),
    [
        ("broker_url.host", "a string"),
        ("task_acks_late.x", "a boolean"),
        ("accept_content.0", "a list"),
        ("result_expires.days", "a number"),
        ("worker_max_tasks_per_child.a.b", "a whole number"),
    ],
)
def test_nested_below_what_is_not_a_dictionary(key, type_):
    """A setting that is not a dictionary cannot have keys."""
    name = key.partition(".")[0]
    error = problem(**{key: "1"})
    assert error.key == f"celery.{key}"
    assert f"below celery.{name}, which is not a dictionary but {type_}" in str(error)
    assert f"give celery.{name} a value instead" in str(error)


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("broker_transport_options", "broker_transport_options.a"),
        ("broker_transport_options", "broker_transport_options.a.b"),
        ("broker_transport_options.a", "broker_transport_options.a.b"),
        ("broker_transport_options.a", "broker_transport_options.a.b.c"),
        ("broker_transport_options.a.b", "broker_transport_options.a.b.c"),
    ],
)
@pytest.mark.parametrize("value", ['{"x": 1}', "{}", "null", {"x": 1}])
@pytest.mark.parametrize("reverse", [False, True])
def test_both_a_value_and_nested(shorter, longer, value, reverse):
    """A setting is a value or has keys, at any depth and in any order of the file."""
    items = [(shorter, value), (longer, "2")]
    error = problem(**dict(reversed(items) if reverse else items))
    assert error.key == f"celery.{longer}"
    assert f"nests below celery.{shorter}, which also has a value" in str(error)


# Names.


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("broker_ulr", "broker_url"),
        ("worker_concurency", "worker_concurrency"),
        ("broker_pasword", "broker_password"),
        ("task_default_ratelimit", "task_default_rate_limit"),
        ("WORKER_CONCURENCY", "worker_concurrency"),
        ("broker_transport_option.region", "broker_transport_options.region"),
        ("broker.url", "broker_url"),
        ("task.always_eager", "task_always_eager"),
        ("broker.transport.options.region", "broker_transport_options.region"),
    ],
)
def test_near_name(key, nearest, caplog):
    """A misspelt setting is a warning that gives the right name."""
    extract_celery_settings({f"celery.{key}": "x"})
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.WARNING
    assert f"celery.{key} is not a setting" in message
    assert message.endswith(f"Did you mean celery.{nearest}?")


def test_names_without_a_near_one(caplog):
    """A warning about one makes no guess, and a known setting makes no warning."""
    extract_celery_settings({"celery.zzz": "x", "celery.broker_url": "redis://"})
    (message,) = caplog.messages
    assert "celery.zzz" in message
    assert "Did you mean" not in message


@pytest.mark.skipif(
    not hasattr(celery.bin.base, "DaemonOption"),
    reason="this Celery takes the options of a daemon from the command line only",
)
@pytest.mark.parametrize("key", ["worker_logfile", "beat_pidfile", "events_umask"])
def test_option_of_a_daemon(caplog, key):
    """Celery reads it from a setting that its table lacks: there is no warning."""
    assert extract_celery_settings({f"celery.{key}": "x"}) == {key: "x"}
    assert caplog.messages == []


def test_setting_of_a_scheduler(caplog, tmp_path, monkeypatch):
    """A warning says that the scheduler is missing; if it is there, there is none."""
    extract_celery_settings({"celery.redbeat_lock_key": "x"})
    (message,) = caplog.messages
    assert message.endswith("is a setting of redbeat, which is not installed.")
    (tmp_path / "redbeat.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    extract_celery_settings({"celery.redbeat_lock_key": "x"})
    assert caplog.messages == [message]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"redbeat_redis_url": "redis://"}, {"redbeat_redis_url": "redis://"}),
        ({"redbeat_lock_timeout": "60"}, {"redbeat_lock_timeout": 60}),
        ({"plugin.option": "true"}, {"plugin": {"option": True}}),
        ({"plugin.a.b": "x", "plugin.a.c": "1"}, {"plugin": {"a": {"b": "x", "c": 1}}}),
        ({"BROKER_USE_SSL.x": "y"}, {"broker_use_ssl": {"x": "y"}}),
        (
            {
                "beat_schedule.a.b": "5.0",
                "beat_schedule.c": "x",
                "beat_schedule.a.d": "3",
            },
            {"beat_schedule": {"a": {"b": 5.0, "d": 3}, "c": "x"}},
        ),
    ],
)
def test_nested_and_unknown_settings(settings, found):
    """Dictionaries nest in dictionaries, also of old names and of Celery's plugins."""
    assert coerce_settings(settings) == found


@pytest.mark.parametrize(
    ("old", "text", "new", "value"),
    [
        ("BROKER_URL", "redis://", "broker_url", "redis://"),
        ("CELERY_RESULT_BACKEND", "rpc://", "result_backend", "rpc://"),
        ("CELERY_ACCEPT_CONTENT", "json yaml", "accept_content", ["json", "yaml"]),
        ("CELERYD_CONCURRENCY", "4", "worker_concurrency", 4),
        ("CELERY_ALWAYS_EAGER", "true", "task_always_eager", True),
        ("CELERY_TASK_RESULT_EXPIRES", "60", "result_expires", 60.0),
    ],
)
def test_names_from_before_celery_4(old, text, new, value, caplog):
    """Names in upper case, which Celery still reads, are read as what they mean."""
    assert _TO_NEW_KEY[old] == new
    assert extract_celery_settings({f"celery.{old}": text}) == {new: value}
    assert caplog.records == []


# Secrets.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("worker_max_tasks_per_child", "redis://user:hunter2@localhost"),
        ("worker_max_tasks_per_child", "amqp://hunter2@localhost//"),
        ("broker_transport_options", "https://:hunter2@proxy/"),
        ("broker_transport_options", "https://me:hunter2/with/slashes@proxy/"),
        ("task_acks_late", "sentinel://:hunter2@localhost"),
        ("redis_password_port", '["hunter2"'),
        ("broker_transport_options", '{"password": "hunter2"'),
        ("broker_transport_options", '{"secret": "hunter2"'),
        ("broker_transport_options", '{"auth_token": "hunter2"'),
        ("broker_transport_options", '{"access_key": "hunter2"'),
        ("broker_transport_options.password", '{"hunter2'),
        ("broker_transport_options.client_secret", "[hunter2"),
        ("broker_transport_options.token", "[hunter2"),
        ("broker_transport_options.api_key", "[hunter2"),
        ("task_annotations", '["redis://:hunter2@localhost"'),
        ("plugin_password", "{hunter2"),
    ],
)
def test_secrets_are_not_shown(key, value):
    """An error never shows a password, whether the key or the value gives it away."""
    error = problem(**{key: value})
    assert error.key == f"celery.{key}"
    assert "hunter2" not in repr(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert "********" in str(error)


# Merging.


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 2}}),
        (
            {"a": {"x": {"m": 1}}},
            {"a": {"x": {"n": 2}}},
            {"a": {"x": {"m": 1, "n": 2}}},
        ),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": True}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        (
            {"beat_schedule": {"x": {"task": "a", "args": [1]}, "y": 1}},
            {"beat_schedule": {"x": {"task": "b"}}},
            {"beat_schedule": {"x": {"task": "b"}, "y": 1}},
        ),
        (
            {"beat_schedule": {"x": {"task": "a", "args": [1]}}},
            {"beat_schedule": {"x": {"args": [2]}}},
            {"beat_schedule": {"x": {"task": "a", "args": [2]}}},
        ),
    ],
)
def test_merge(base, override, merged):
    """The override wins; dictionaries merge key by key."""
    assert merge_settings(base, override) == merged


@pytest.mark.parametrize("form", [dict, lambda routes: [routes]])
def test_merge_of_routes(form):
    """The first pattern that fits is one of those that win."""
    base = form({"ad*": {"queue": "below"}, "b": {"priority": 1}})
    override = {"a*": {"queue": "above"}, "b": {"queue": "above"}}
    merged = merge_settings({"task_routes": base}, {"task_routes": override})
    app = Celery(set_as_current=False, task_routes=merged["task_routes"])
    for name in "add", "b":
        route = app.amqp.router.route({}, name)
        assert route["queue"].name == "above"


def test_merge_leaves_both_alone():
    """Merging changes neither of what is merged."""
    base, override = {"a": {"x": 1}}, {"a": {"y": 2}}
    merge_settings(base, override)["a"]["z"] = 3
    assert base == {"a": {"x": 1}}
    assert override == {"a": {"y": 2}}


def test_merge_of_nested_and_value():
    """Dictionaries merge whether they were written with dots or as JSON."""
    dotted = coerce_settings({"broker_transport_options.a": "1"})
    json = coerce_settings({"broker_transport_options": '{"b": 2}'})
    both = {"broker_transport_options": {"a": 1, "b": 2}}
    assert merge_settings(dotted, json) == merge_settings(json, dotted) == both


# Through a real file.


def test_file(write_ini, tmp_path):
    """What PasteDeploy fills in, inherits and joins is read, and the case of keys."""
    text = """
[DEFAULT]
redis = redis://localhost:6379
queue = from default
concurrency = 2

[app:main]
use = base
celery.beat_schedule_filename = %(here)s/schedule
celery.worker_log_format = %%(message)s
celery.broker_transport_options.queueName = X
get celery.task_default_queue = queue
set concurrency = 8
get celery.worker_concurrency = concurrency
celery.imports =
    a.tasks
    b.tasks
celery.task_routes = {
    "a.*": {"queue": "x"},
    "b.*": {"queue": "y"}
    }

[app:base]
use = call:exampleapp:main
celery.broker_url = %(redis)s/%(db)s
celery.worker_concurrency = 1
"""
    loader = plaster.get_loader(str(write_ini(text)))
    settings = loader.get_wsgi_app_settings(defaults={"db": "2"})
    assert extract_celery_settings(settings) == {
        "broker_url": "redis://localhost:6379/2",
        "beat_schedule_filename": f"{tmp_path}/schedule",
        "worker_log_format": "%(message)s",
        "broker_transport_options": {"queueName": "X"},
        "task_default_queue": "from default",
        "worker_concurrency": 8,
        "imports": ["a.tasks", "b.tasks"],
        "task_routes": {"a.*": {"queue": "x"}, "b.*": {"queue": "y"}},
    }


def test_error_in_an_application(configure):
    """A wrong setting stops the application when it is committed."""
    config = configure(**{"celery.result_expires": "1 day"})
    with pytest.raises(ConfigurationError, match=re.escape("celery.result_expires")):
        config.commit()


@pytest.mark.parametrize(
    ("setting", "value", "is_told"),
    [
        ("task_always_eager", False, True),
        ("task_always_eager", True, False),
        ("broker_read_url", "memory://", True),
        ("broker_write_url", "memory://", False),
    ],
)
def test_web_process_without_a_broker(configure, caplog, setting, value, is_told):
    """Without a broker tasks would go to Celery's default: a warning says so."""
    configure(**{f"celery.{setting}": value}).commit()
    assert ("celery.broker_url is not set" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("delivry", " Did you mean pyramid_tasks.delivery?"),
        ("baseurl", " Did you mean pyramid_tasks.base_url?"),
        ("zzz", ""),
    ],
)
def test_unknown_setting_of_the_package(configure, caplog, key, hint):
    """A misspelt setting of this package is a warning too."""
    settings = {f"pyramid_tasks.{key}": "x", "celery.broker_url": "memory://"}
    configure(**settings).commit()
    assert caplog.messages == [
        f"pyramid_tasks.{key} is not a setting of pyramid_tasks.{hint}"
    ]


def test_defaults_of_numbers():
    """They are those that the documentation has."""
    page = Path(__file__).parents[1] / "docs/reference/settings.md"
    for name, default in NUMBERS.items():
        assert f"| `pyramid_tasks.{name}` | {default:g} |" in page.read_text()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("pyramid_task.delivery", "pyramid_tasks.delivery"),
        ("pyramid-tasks.delivery", "pyramid_tasks.delivery"),
        ("pyramid.tasks.delivery", "pyramid_tasks.delivery"),
        ("pyramid_tasks_delivery", "pyramid_tasks.delivery"),
        ("Pyramid_Tasks.Delivery", "pyramid_tasks.delivery"),
        ("celry.task_ignore_result", "celery.task_ignore_result"),
        ("celrey.task_ignore_result", "celery.task_ignore_result"),
        ("Celery.task_ignore_result", "celery.task_ignore_result"),
        ("celery_task_ignore_result", "celery.task_ignore_result"),
        ("celery-timezone", "celery.timezone"),
        ("CELERYD_CONCURRENCY", "celery.worker_concurrency"),
        ("task_acks_late", "celery.task_acks_late"),
        (
            "broker_transport_options.visibility_timeout",
            "celery.broker_transport_options.visibility_timeout",
        ),
    ],
)
def test_setting_that_nobody_reads(configure, caplog, key, nearest):
    """A warning has the setting that is meant, unless that is given as well."""
    configure(**{key: "x", "celery.broker_url": "memory://"}).commit()
    problem = "is read neither by Celery nor by pyramid_tasks."
    assert caplog.messages == [f"{key} {problem} Did you mean {nearest}?"]
    caplog.clear()
    assert [*unknown_settings({key: "x", nearest: "x"})] == []


def test_settings_of_others():
    """There is no warning about a setting that another package may have."""
    keys = """
        pyramid.includes pyramid_tm.delivery pyramid_tasks_mail.context tm.attempts
        tasks.delivery delivery inbox base_url timezone imports include redis_host
        database_url security_key celery celerybeat.path celery_once.backend celery_app
        taskboard.timezone task_board worker_name broker.url result gallery.timezone
        jinja2.filters sqlalchemy.url celery.nothing pyramid_tasks.nothing get_timezone
    """
    nested = {"shop": {"timezone": "x"}, "celerys": {"shop": "x"}}
    assert [*unknown_settings(dict.fromkeys(keys.split(), "x") | nested)] == []


@pytest.mark.parametrize(
    ("drop", "keep"),
    [
        ("TASK_TIME_LIMIT", "Task_Time_Limit"),
        ("Task_Time_Limit", "task_time_limit"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("worker_Concurrency", "worker_concurrency"),
        ("TASK_ROUTES.a", "task_routes.a"),
    ],
)
def test_setting_in_two_spellings(caplog, drop, keep):
    """A warning says which one wins."""
    settings = {f"celery.{keep}": "7", f"celery.{drop}": "5"}
    assert extract_celery_settings(settings) == coerce_settings({keep: "7"})
    assert caplog.messages == [
        f"celery.{drop} is celery.{keep} in another spelling, which wins: drop it."
    ]
