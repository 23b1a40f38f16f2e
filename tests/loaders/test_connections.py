"""Settings with which a client of a broker cannot connect, told without connecting."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from string import Template

import plaster
import pytest
from kombu.transport.redis import SentinelChannel
from redis.retry import Retry
from servers import certificate

from pyramid_tasks.configuration.tls import redis_options
from pyramid_tasks.configuration.transport_options import READERS
from pyramid_tasks.exceptions import SettingError
from pyramid_tasks.loaders.opening import open_app
from pyramid_tasks.scripts.problems import find_problems

SECRET = "s3cr3t"
APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
celery.result_backend = cache+memory://
"""
BROKER = {
    "URL": "celery.broker_url",
    "OPTIONS": "celery.broker_transport_options",
    "TLS": "celery.broker_use_ssl",
}
RESULTS = {
    "URL": "celery.result_backend",
    "OPTIONS": "celery.result_backend_transport_options",
    "TLS": "celery.redis_backend_use_ssl",
}
#: Later versions of the client have more.
KNOWN = redis_options()
#: Options of TLS for Redis, and what is said of them.
REDIS_OPTIONS = {
    "ssl_cert_reqs = nonsense": "is not one of none, optional, required.",
    "ssl_cert_reqs = requierd": "Did you mean required?",
    "ssl_cert_reqs = true": "is not one of none, optional, required.",
    "ssl_cert_reqs = 7": "is not one of none, optional, required.",
    "ssl_check_hostname = perhaps": "is not true or false.",
    "ssl_ca_certs = /nowhere.pem": "is no file that is there: write a path.",
    "ssl_ca_certs = $FOLDER": "is no file that is there: write a path.",
    "ssl_ca_certs = $FOLDER/key.pem": "is no PEM file of certificates",
    "ssl_ca_path = /nowhere": "is no folder that is there: write a path.",
    "ssl_certfile = $FOLDER/key.pem": "do not fit, or are no PEM files",
    "ssl_keyfile = $FOLDER/key.pem": "a key and none of its certificate: write both.",
    "ssl_certfile = /nowhere.pem\n$TLS.ssl_keyfile = $FOLDER/key.pem": "is no file",
    f"ssl_keyfile = BEGIN KEY {SECRET}": "is no file that is there: write a path.",
    "ssl_min_version = TLSv9": "is not one of TLSv1, TLSv1_1, TLSv1_2, TLSv1_3.",
    "ssl_include_verify_flags = NONSENSE": "is not one of VERIFY_",
    "ssl_ciphers = NONSENSE": "has no cipher that OpenSSL knows.",
    f"ssl_ca_cert = {SECRET}": "is unknown. Did you mean ssl_ca_certs?",
    "ca_certs = x": "is unknown. Did you mean ssl_ca_certs?",
    "server_hostname = x": "is unknown.",
}
#: Options of TLS for RabbitMQ, and what is said of them.
AMQP_OPTIONS = {
    "cert_reqs = nonsense": "is not one of none, optional, required.",
    "ca_certs = /nowhere.pem": "is no file that is there: write a path.",
    "ca_certs = $FOLDER/key.pem": "is no PEM file of certificates",
    "certfile = /nowhere.pem": "is no file that is there: write a path.",
    "keyfile = $FOLDER/key.pem": "a key and none of its certificate: write both.",
    "ssl_version = SSLv99": "is not one of PROTOCOL_TLS",
    "server_side = perhaps": "is not true or false.",
    "server_hostname = 7": "is no name of a host.",
    "ssl_ca_certs = x": "is unknown. Did you mean ca_certs?",
    "ca_cert = x": "is unknown. Did you mean ca_certs?",
    "context = nonsense": "is no dictionary.",
    'context = {"cafiles": "x"}': "is unknown. Did you mean cafile?",
    'context = {"cafile": "/nowhere"}': "is no file that is there: write a path.",
    'context = {"check_hostname": true}': "write server_hostname too.",
    'context = {"cafile": null}\n$TLS.ca_certs = x': "has the option ca_certs,",
    "cert_reqs = none\n$TLS.server_hostname = x": "cert_reqs = none: drop one.",
}
#: Options of transports, and what is said of them.
TRANSPORT_OPTIONS = {
    "visibility_timeout = 1h": "= '1h' is not a number of at least 0.",
    "visibility_timeout = null": "= 'None' is not a number of at least 0.",
    "vsibility_timeout = 5": "is an option that nobody reads. Did you mean visibility_",
    "priority_steps = 3": "is not a list of numbers: write [0, 3, 6, 9], or such.",
    'priority_steps = ["3"]': "is not a list of numbers",
    "priority_steps = []": "is not a list of numbers",
    "queue_order_strategy = prority": "dotted name. Did you mean priority?",
    "health_check_interval = -1": "= '-1' is not a number of at least 0.",
    "socket_timeout = true": "= 'True' is not a number of at least 0.",
    "max_connections = 2.5": "= '2.5' is not a whole number of at least 0.",
    "max_retries = many": "= 'many' is not a number of at least 0.",
    "fanout_patterns = maybe": "= 'maybe' is not true or false.",
    "sep = {}": "is not a text.",
    'socket_keepalive_options = {"TCP_X": 1}': "is not of the form {",
    "socket_keepalive_options = x": "is not of the form {",
    "retry_policy = 5": "is not of the form {",
    'retry_policy = {"max_retry": 5}': "has the key max_retry, not one of max_retries,",
    'retry_policy = {"timeout": "x"}': "has timeout = 'x', which is not a number",
}


def _is_known(line):
    return line.partition(" ")[0] in KNOWN


_SENTINEL = "$URL = sentinel://h\n$OPTIONS.master_name = x"
#: Lines of an ini, the setting that is told, and what is said.
OF_BOTH = [
    ("$URL = redis+socket:///s\n$TLS.ssl_cert_reqs = none", "$TLS", "no TLS: leave"),
    ("$URL = redis+socket:///s?ssl_cert_reqs=none", "$URL", "A UNIX socket has none"),
    ("$URL = rediss://h?ssl_cert_reqs=x", "$URL", "is not one of none, optional"),
    (
        "$URL = rediss://h?ssl_cert_reqs=none&ssl_ca_cert=x",
        "$URL",
        "mean ssl_ca_certs?",
    ),
    ("$URL = sentinel://h", "$OPTIONS", "lacks the name of the master that the senti"),
    ("$URL = sentinel://h", "$OPTIONS", "watch: write $OPTIONS.master_name = NAME."),
    *(
        (f"$URL = sentinel://h\n$OPTIONS.{wrong} = x", "$OPTIONS", "mean master_name?")
        for wrong in ("mastername", "master-name", "Master_Nam")
    ),
    *(
        (f"{_SENTINEL}\n$OPTIONS.sentinel_kwargs{line}", "$OPTIONS", said)
        for line, said in {
            " = nonsense": "which is no dictionary",
            ".ssl_cert_reqs = x": "is not one of none, optional, required.",
            ".retry = x": "the option retry, which is no number.",
            ".passwd = x": "passwd, which is unknown. Did you mean password?",
            ".ssl_cert_reqs = none": 'has ssl_ options without "ssl": true',
        }.items()
    ),
    *(
        (f"$OPTIONS.{line}", f"$OPTIONS.{line.partition(' ')[0]}", said)
        for line, said in TRANSPORT_OPTIONS.items()
    ),
    *(
        (
            f"$URL = rediss://h?ssl_cert_reqs=optional\n$TLS.{line}",
            "$TLS",
            said if _is_known(line) or "unknown" in said else "is unknown.",
        )
        for line, said in REDIS_OPTIONS.items()
    ),
]
OF_BROKER = [
    (
        "$URL = rediss://h?ssl_min_version=TLSv1_2",
        "$URL",
        "Write $TLS.ssl_min_version" if "ssl_min_version" in KNOWN else "is unknown.",
    ),
    ("$URL = redis://h?ssl=true", "$URL", "no TLS. Write $TLS.ssl_cert_reqs instead."),
    ("$URL = redis://h?timeout=5", "$URL", "is unknown. Did you mean connect_timeout?"),
    ("$URL = redis://h?connect_timeout=5", "$URL", "Set broker_connection_timeout in"),
    ("$URL = sqla+sqlit:///x", "$URL", "is of no database that SQLAlchemy knows"),
    ("$URL = sqla+:///x", "$URL", "by SQLAlchemy: write postgresql://"),
    (
        "$URL = sqla+oracle+cx_oracle://h",
        "$URL",
        "needs the module cx_Oracle, which ",
    ),
    ("$URL = amqps://h?ssl_ca_certs=x", "$URL", "no TLS. Write $TLS.ca_certs instead."),
    ("$URL = redis://h;rediss://i?ssl_cert_reqs=x", "$URL", "is not one of none"),
    *(
        (
            f"$URL = {scheme}://h\n$OPTIONS.master_name = x\n$TLS = true",
            "$TLS",
            "= true turns on no TLS for Redis: write rediss:// in the address",
        )
        for scheme in ("redis", "rediss", "sentinel")
    ),
    *(
        (f"$URL = amqp://h\n$TLS.{line}", "$TLS", said)
        for line, said in AMQP_OPTIONS.items()
    ),
]
OF_RESULTS = [
    ("$URL = rediss://h", "$URL", "write $TLS.ssl_cert_reqs = required."),
    ("$URL = redis://h?ssl_cert_reqs=none", "$URL", "Write rediss:// instead of redis"),
    (
        "$URL = redis://h?socket_timout=5",
        "$URL",
        "is unknown. Did you mean socket_time",
    ),
    *(
        (
            f"$URL = {scheme}://h\n$OPTIONS.master_name = x\n$TLS.ssl_ca_path = /",
            "$TLS",
            "lacks ssl_cert_reqs.",
        )
        for scheme in ("redis", "sentinel")
    ),
]


def replaced(text, names):
    return Template(text).safe_substitute(names)


def rows():
    for names, table in (BROKER, OF_BOTH + OF_BROKER), (RESULTS, OF_BOTH + OF_RESULTS):
        for lines, about, said in table:
            texts = [replaced(each, names) for each in (lines, about, said)]
            yield pytest.param(*texts, id=texts[0].replace("\n", ", "))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with a certificate and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder)
    return folder


@pytest.fixture
def write(write_ini):
    """Return a function that writes an ini with some lines, and gives its path."""

    def write(lines, names=BROKER):
        app, lines = APP, replaced(lines, names)
        for line in lines.splitlines():
            key = line.partition(" =")[0]
            app = re.sub(rf"^{re.escape(key)} .*\n", "", app, flags=re.MULTILINE)
        return str(write_ini(app + lines + "\n"))

    return write


@pytest.mark.parametrize(("lines", "about", "said"), [*rows()])
def test_mistake(write, files, lines, about, said):
    """The check tells it in one sentence with its place, and without secrets."""
    ini = write(lines, {"FOLDER": str(files)})
    (problem,) = find_problems(ini, {})
    assert problem["where"] == f"{ini}, [app:main]"
    sentence = str(problem["message"])
    assert sentence.startswith(f"{about} ")
    assert said in sentence
    assert SECRET not in sentence


@pytest.mark.parametrize(
    "lines",
    [
        "$URL = sentinel://h",
        "$URL = rediss://h?ssl_cert_reqs=nonsense",
        "$URL = rediss://h\n$TLS.ssl_cert_reqs = nonsense",
        "pyramid_tasks.config_uri = %(__file__)s\n[celery]\nbroker_url = sentinel://h",
    ],
)
@pytest.mark.parametrize("names", [BROKER, RESULTS], ids=["broker", "results"])
def test_worker_and_web_process(write, names, lines):
    """They do not start, and tell it in the sentence of the check.

    So does a worker whose own section has the mistake.
    """
    ini = write(lines, names)
    (problem,) = find_problems(ini, {})
    with pytest.raises(SettingError) as of_worker:
        open_app(ini)
    with pytest.raises(SettingError) as of_web:
        plaster.get_loader(ini).get_wsgi_app()
    told = f"{problem['where']}: {problem['message']}"
    assert str(of_worker.value) == str(of_web.value) == told


@pytest.mark.parametrize(
    ("variable", "url", "said"),
    [
        ("CELERY_RESULT_BACKEND", "redis://h?ssl_cert_reqs=none", "has ssl_cert_r"),
        ("CELERY_RESULT_BACKEND", "rediss://h", "has rediss:// without ssl_cert_reqs"),
        ("CELERY_RESULT_BACKEND", "db+sqlite:////nowhere/x", "is in a folder that is "),
        ("CELERY_BROKER_URL", "redis://h?foo=1", "has foo in its query, which is un"),
        ("CELERY_BROKER_URL", "sqla+sqlit:///x", "is of no database that SQLAlchemy"),
    ],
)
def test_address_in_the_environment(write, monkeypatch, variable, url, said):
    """An address that wins over the ini is checked in its place, and told once."""
    ini = write("celery.result_backend = rediss://h")
    monkeypatch.setenv(variable, url)
    told = [
        f"{problem['where']}: {problem['message']}"
        for problem in find_problems(ini, {})
        if "environment" in f"{problem}"
    ]
    (once,) = told
    assert once.startswith(f"the environment: {variable} {said}")


def test_same_address_twice_in_the_environment(write, monkeypatch):
    """A mistake is that of the variable of its server."""
    url = "rediss://h"  # which is right for a broker
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", url)
    (problem,) = find_problems(write(""), {})
    assert problem["message"].startswith("CELERY_RESULT_BACKEND has rediss://")


def test_without_the_client_of_redis(write, monkeypatch):
    """An option is no mistake where its client is not there to ask."""
    monkeypatch.setattr("pyramid_tasks.configuration.connections.find_spec", {}.get)
    assert find_problems(write("$URL = sentinel://h"), {}) == []


@pytest.mark.parametrize(
    "form", ["required", "CERT_REQUIRED", "ssl.CERT_REQUIRED", '"REQUIRED"', "2"]
)
def test_forms_of_a_constant(write, files, form):
    """Each is what the clients take: in options, queries and for sentinels."""
    query = "ssl_cert_reqs={}&ssl_ca_certs={}/cert.pem".format(form.strip('"'), files)
    lines = f"""
celery.broker_url = rediss://h?{query}
celery.result_backend = rediss://h?{query}
"""
    app = open_app(write(lines))
    for found in app.connection_for_write().ssl, app.backend.connparams:
        assert found["ssl_cert_reqs"] is ssl.CERT_REQUIRED
        assert found["ssl_ca_certs"] == f"{files}/cert.pem"

    lines = f"""
{_SENTINEL}
$TLS.ssl_cert_reqs = {form}
$OPTIONS.sentinel_kwargs.ssl = yes
$OPTIONS.sentinel_kwargs.ssl_cert_reqs = {form}
$OPTIONS.sentinel_kwargs.retry = 0
celery.result_backend = redis://h
celery.redis_backend_use_ssl.ssl_cert_reqs = {form}
"""
    app = open_app(write(lines))
    assert app.connection_for_write().ssl["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    inside = app.conf.broker_transport_options["sentinel_kwargs"]
    assert isinstance(inside.pop("retry"), Retry)
    assert inside == {"ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert app.backend.connparams["ssl_cert_reqs"] is ssl.CERT_REQUIRED

    app = open_app(write(f"$URL = amqp://h\n$TLS.cert_reqs = {form}"))
    assert app.conf.broker_use_ssl["cert_reqs"] is ssl.CERT_REQUIRED


def test_other_values(write, files):
    """Switches, versions, flags, files and names are what the clients take, too."""
    cert, key = f"{files}/cert.pem", f"{files}/key.pem"
    options = {
        "ssl_check_hostname": ("no", False),
        "ssl_min_version": ("TLSv1.2", ssl.TLSVersion.TLSv1_2),
        "ssl_include_verify_flags": ("VERIFY_X509_STRICT", [ssl.VERIFY_X509_STRICT]),
        "ssl_ciphers": ("HIGH", "HIGH"),
        "ssl_cert_reqs": ("optional", ssl.CERT_OPTIONAL),
        "ssl_certfile": (cert, cert),
        "ssl_keyfile": (key, key),
    }
    options = {name: option for name, option in options.items() if name in KNOWN}
    lines = [f"$TLS.{name} = {written}" for name, (written, _) in options.items()]
    app = open_app(write("\n".join(["$URL = redis://h", *lines])))
    expected = {name: value for name, (_, value) in options.items()}
    assert app.conf.broker_use_ssl == expected
    app = open_app(write("$URL = amqp://h\n$TLS.server_hostname = shop"))
    assert app.conf.broker_use_ssl == {"server_hostname": "shop"}


def test_key_with_a_password(write, files, tmp_path):
    """The password is used."""
    key = f"{tmp_path}/locked.pem"
    command = f"openssl pkey -in {files}/key.pem -aes256 -passout pass:{SECRET}"
    subprocess.run([*command.split(), "-out", key], check=True)
    lines = f"$TLS.ssl_certfile = {files}/cert.pem\n$TLS.ssl_keyfile = {key}"
    ini = write(f"$URL = redis://h\n{lines}\n$TLS.ssl_password = {SECRET}")
    assert find_problems(ini, {}) == []


def test_switch_in_a_query(write):
    """It is a word that the clients take, whichever of those for it is written."""
    app = open_app(write("$URL = rediss://h?ssl_check_hostname=No"))
    assert app.conf.broker_url == "rediss://h?ssl_check_hostname=false"


@pytest.mark.parametrize(("prefix", "read_prefix"), [("no", False), ("/{db}.",) * 2])
def test_options_of_transports(write, prefix, read_prefix):
    """They are what the clients take, and one that is near to no other stays."""
    options = {
        "fanout_prefix": (prefix, read_prefix),
        "fanout_patterns": ("false", False),
        "global_keyprefix": ("5", "5"),
        "max_retries": ("null", None),
        "own_option": ("x", "x"),
        "priority_steps": ("[0, 9]", [0, 9]),
        "queue_order_strategy": ("priority", "priority"),
        "retry_policy": ('{"timeout": 5.0}', {"timeout": 5.0}),
        "socket_keepalive_options.TCP_NODELAY": ("1", {socket.TCP_NODELAY: 1}),
        "unacked_key": ("un", "un"),
        "unacked_restore_limit": ("null", None),
    }
    lines = [f"$OPTIONS.{name} = {written}" for name, (written, _) in options.items()]
    ini = write("\n".join(lines))
    assert find_problems(ini, {}) == []
    assert open_app(ini).conf.broker_transport_options == {
        name.partition(".")[0]: value for name, (_, value) in options.items()
    }
    assert {*SentinelChannel.from_transport_options} <= READERS.keys()


@pytest.mark.parametrize(
    "lines",
    [
        "$URL = amqps://h\n$TLS = true",
        "$URL = amqp://h?heartbeat=30&ssl=true",
        "$URL = amqp://h\n$TLS.cert_reqs = required\n$TLS.server_hostname = null",
        '$URL = amqp://h\n$TLS.context = {"purpose": "ssl.Purpose.SERVER_AUTH"}',
        "$URL = rediss://h",
        "$URL = redis://h\n$TLS = false",
        "$URL = memory://\n$TLS.anything = x",
        "celery.task_time_limit = 0\ncelery.worker_max_tasks_per_child = 1",
        'celery.database_table_names = {"task": "x", "group": "y"}',
        "[celery:main]\nbroker_transport_options.visibility_timeout = 5",
    ],
)
def test_no_mistake(write, lines):
    """What the clients take is no problem."""
    assert find_problems(write(lines), {}) == []
