"""Strings of an ini file become the configuration of Celery."""

from __future__ import annotations

import logging
import re
import traceback
from datetime import timedelta

import plaster
import pytest
from celery import Celery
from celery.app.defaults import _TO_NEW_KEY, NAMESPACES, flatten
from pyramid.exceptions import ConfigurationError

from pyramid_tasks import PyramidTasksError
from pyramid_tasks._celery import SETTING_TYPES
from pyramid_tasks.coercion import TYPES
from pyramid_tasks.exceptions import SettingError
from pyramid_tasks.settings import (
    coerce_settings,
    extract_celery_settings,
    merge_settings,
)

OPTIONS = dict(flatten(NAMESPACES))


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


def test_no_settings():
    """An application without Celery settings has an empty configuration."""
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


# The cases that the documentation promises.


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("task_default_rate_limit", "10/m", "10/m"),
        ("broker_connection_retry_on_startup", "false", False),
        ("worker_concurrency", "4", 4),
        ("accept_content", "json, pickle", ["json", "pickle"]),
        ("imports", "a.tasks b.tasks", ["a.tasks", "b.tasks"]),
        (
            "task_routes",
            '{"app.tasks.*": {"queue": "x"}}',
            {"app.tasks.*": {"queue": "x"}},
        ),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
        ("broker_url", "redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("result_expires", "3600", 3600.0),
        ("broker_heartbeat", "10", 10),
        ("task_default_priority", "5", 5),
        ("worker_pool", "threads", "threads"),
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


def test_dots_nest_deeply():
    """Dictionaries nest in dictionaries, side by side."""
    assert coerce_settings(
        {
            "result_backend_transport_options.retry_policy.timeout": "5.0",
            "result_backend_transport_options.retry_policy.max_retries": "3",
            "result_backend_transport_options.global_keyprefix": "x_",
        }
    ) == {
        "result_backend_transport_options": {
            "retry_policy": {"timeout": 5.0, "max_retries": 3},
            "global_keyprefix": "x_",
        }
    }


# Types.


@pytest.mark.parametrize("text", ["true", "True", "t", "yes", "y", "on", "1", " on "])
def test_true(text):
    """The words that Pyramid's asbool takes for true are true."""
    assert coerce("task_acks_late", text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "f", "no", "n", "off", "0", ""])
def test_false(text):
    """The words that Pyramid's asbool takes for false are false."""
    assert coerce("task_acks_late", text) is False


@pytest.mark.parametrize("key", ["accept_content", "imports", "include"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n ", []),
        (" , ", []),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("off", False),
        ('{"ssl_cert_reqs": 2}', {"ssl_cert_reqs": 2}),
    ],
)
def test_boolean_or_dictionary(text, value):
    """broker_use_ssl is what Celery documents, a boolean or a dictionary."""
    assert coerce("broker_use_ssl", text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1.5", 1.5),
        ("word", "word"),
        ("10/m", "10/m"),
        ('"8"', "8"),
        ("true", True),
        ('{"a": [1, null]}', {"a": [1, None]}),
    ],
)
def test_any(text, value):
    """Where Celery declares no type, a string that is JSON is read as JSON."""
    found = coerce("task_annotations", text)
    assert found == value
    assert type(found) is type(value)


def test_bytes():
    """A setting of bytes is the string, encoded."""
    assert coerce("security_key_password", "geheim ä") == "geheim ä".encode()


def test_multi_line_dictionary():
    """A JSON object may be spread over lines."""
    text = '\n{\n"a.*":\n  {"queue": "x"}\n}'
    assert coerce("task_queues", text) == {"a.*": {"queue": "x"}}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_of_celery_has_a_type(name):
    """The installed Celery declares no type that this package cannot read."""
    option = OPTIONS[name]
    declared = option.type if isinstance(option.type, str) else option.type.__name__
    assert declared in {*TYPES, "str"}
    assert SETTING_TYPES[name] in TYPES


@pytest.mark.parametrize(
    "name", sorted(name for name, option in OPTIONS.items() if option.type == "int")
)
def test_every_whole_number_of_celery(name):
    """Each setting that Celery declares an int is read as one."""
    assert coerce(name, "7") == 7


@pytest.mark.parametrize(
    "name", sorted(name for name, option in OPTIONS.items() if option.type == "dict")
)
def test_every_dictionary_of_celery(name):
    """Each setting that Celery declares a dict is read from JSON, and nests."""
    assert coerce(name, '{"a": 1}') == {"a": 1}
    assert coerce(f"{name}.a", "1") == {"a": 1}


def test_celery_takes_the_result():
    """Celery is configured by the dictionary, nested and old names included."""
    app = Celery(set_as_current=False)
    app.config_from_object(
        extract_celery_settings(
            {
                "celery.broker_url": "memory://",
                "celery.worker_concurrency": "3",
                "celery.broker_transport_options.visibility_timeout": "60",
            }
        )
    )
    assert app.conf.broker_url == "memory://"
    assert app.conf.worker_concurrency == 3
    assert app.conf.broker_transport_options == {"visibility_timeout": 60}


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


@pytest.mark.parametrize(
    "key",
    [
        "worker_concurrency",
        "task_acks_late",
        "accept_content",
        "result_expires",
        "task_routes",
        "broker_transport_options",
        "broker_use_ssl",
    ],
)
@pytest.mark.parametrize("text", ["null", " null "])
def test_null(key, text):
    """The word null unsets a setting of any type but a string."""
    assert coerce(key, text) is None


def test_null_for_a_string():
    """A setting that is a string can be the word null."""
    assert coerce("task_default_queue", "null") == "null"


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
    ],
)
def test_wrong_types(key, text, expected):
    """Each type refuses what it is not, and says what it is."""
    error = problem(**{key: text})
    assert error.key == f"celery.{key}"
    assert expected in str(error)
    assert repr(text) in str(error)


def test_json_error_says_where():
    """A mistake in JSON is shown with its position."""
    assert "line 1 column 2" in str(problem(broker_transport_options="{1}"))


def test_nested_json_error():
    """A nested value that looks like JSON and is not is refused, not kept as text."""
    error = problem(**{"broker_transport_options.hosts": "[a, b]"})
    assert error.key == "celery.broker_transport_options.hosts"
    assert "'[a, b]' is not JSON or a string" in str(error)


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
        ("task_default_ratelimit", "task_default_rate_limit"),
        ("WORKER_CONCURENCY", "worker_concurrency"),
        (
            "broker_transport_option.visibility_timeout",
            "broker_transport_options.visibility_timeout",
        ),
        ("broker.url", "broker_url"),
        ("task.always_eager", "task_always_eager"),
        ("broker.transport.options.region", "broker_transport_options.region"),
    ],
)
def test_near_name(key, nearest, caplog):
    """A misspelt setting is a warning that gives the right name."""
    extract_celery_settings({f"celery.{key}": "x"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"celery.{key} is not a setting" in record.getMessage()
    assert record.getMessage().endswith(f"Did you mean celery.{nearest}?")


def test_unknown_name_without_a_near_one(caplog):
    """A warning about a name like no other makes no guess."""
    extract_celery_settings({"celery.zzz": "x"})
    assert "celery.zzz" in caplog.text
    assert "Did you mean" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"redbeat_redis_url": "redis://"}, {"redbeat_redis_url": "redis://"}),
        ({"redbeat_lock_timeout": "60"}, {"redbeat_lock_timeout": 60}),
        ({"plugin.option": "true"}, {"plugin": {"option": True}}),
        ({"plugin.a.b": "x", "plugin.a.c": "1"}, {"plugin": {"a": {"b": "x", "c": 1}}}),
    ],
)
def test_unknown_settings_are_kept(settings, found):
    """Plugins of Celery have settings of their own."""
    assert coerce_settings(settings) == found


def test_known_settings_are_silent(caplog):
    """There is no warning about what Celery knows."""
    extract_celery_settings({"celery.broker_url": "redis://"})
    assert caplog.records == []


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


def test_old_names_nest():
    """An old name nests under its new name."""
    assert coerce_settings({"BROKER_TRANSPORT_OPTIONS.region": "eu"}) == {
        "broker_transport_options": {"region": "eu"}
    }


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
    ],
)
def test_merge(base, override, merged):
    """The override wins; dictionaries merge key by key."""
    assert merge_settings(base, override) == merged


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


@pytest.fixture
def from_ini(write_ini):
    """Return a function that reads the Celery settings of an ini with PasteDeploy."""

    def from_ini(text, **variables):
        uri = str(write_ini(text))
        settings = plaster.get_loader(uri).get_wsgi_app_settings(defaults=variables)
        return extract_celery_settings(settings)

    return from_ini


def test_interpolation(from_ini, tmp_path):
    """Variables of the file, of [DEFAULT] and of the caller are filled in."""
    found = from_ini(
        """
[DEFAULT]
redis = redis://localhost:6379

[app:main]
use = call:exampleapp:main
celery.broker_url = %(redis)s/%(db)s
celery.beat_schedule_filename = %(here)s/schedule
celery.worker_log_format = %%(message)s
""",
        db="2",
    )
    assert found == {
        "broker_url": "redis://localhost:6379/2",
        "beat_schedule_filename": f"{tmp_path}/schedule",
        "worker_log_format": "%(message)s",
    }


def test_set_and_get(from_ini):
    """PasteDeploy takes a value from [DEFAULT] by ``get``, which ``set`` changes."""
    found = from_ini(
        """
[DEFAULT]
queue = from default
concurrency = 2

[app:main]
use = call:exampleapp:main
get celery.task_default_queue = queue
set concurrency = 8
get celery.worker_concurrency = concurrency
"""
    )
    assert found == {"task_default_queue": "from default", "worker_concurrency": 8}


def test_multi_line_values(from_ini):
    """Lists and JSON may be indented over several lines."""
    found = from_ini(
        """
[app:main]
use = call:exampleapp:main
celery.imports =
    a.tasks
    b.tasks
celery.task_routes = {
    "a.*": {"queue": "x"},
    "b.*": {"queue": "y"}
    }
"""
    )
    assert found == {
        "imports": ["a.tasks", "b.tasks"],
        "task_routes": {"a.*": {"queue": "x"}, "b.*": {"queue": "y"}},
    }


def test_keys_keep_their_case(from_ini):
    """Keys are read as they stand, so that nested ones can have capitals."""
    found = from_ini(
        """
[app:main]
use = call:exampleapp:main
celery.broker_transport_options.queueName = X
"""
    )
    assert found == {"broker_transport_options": {"queueName": "X"}}


def test_inherited_section(from_ini):
    """``use = other`` inherits settings, and overrides them."""
    found = from_ini(
        """
[app:main]
use = base
celery.worker_concurrency = 2

[app:base]
use = call:exampleapp:main
celery.broker_url = redis://
celery.worker_concurrency = 1
"""
    )
    assert found == {"broker_url": "redis://", "worker_concurrency": 2}


def test_error_in_an_application(configure):
    """A wrong setting stops the application when it is committed."""
    config = configure(**{"celery.result_expires": "1 day"})
    with pytest.raises(ConfigurationError, match=re.escape("celery.result_expires")):
        config.commit()


@pytest.mark.parametrize(("value", "count"), [("4", 4), ("auto", "auto")])
def test_number_of_processes(value, count):
    """It is a number, or the word that Celery has for the size of the machine."""
    settings = {"celery.worker_concurrency": value}
    assert extract_celery_settings(settings) == {"worker_concurrency": count}


@pytest.mark.parametrize("eager", [False, True])
def test_web_process_without_a_broker(configure, caplog, eager):
    """Without a broker tasks would go to Celery's default: a warning says so."""
    configure(**{"celery.task_always_eager": eager}).commit()
    assert ("celery.broker_url is not set" in caplog.text) is not eager


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
