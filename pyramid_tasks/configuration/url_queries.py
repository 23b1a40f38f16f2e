"""The queries of the addresses of Redis and RabbitMQ, after the question mark."""

from __future__ import annotations

from inspect import signature
from ssl import VerifyMode
from urllib.parse import parse_qsl, urlencode

from kombu.connection import Connection

from .tls import hint, read_option, redis_options

#: The keys that kombu takes from the query of an address.
_KOMBU = {*signature(Connection).parameters} - {
    *("alternates", "failover_strategy", "kwargs", "transport_options", "uri_prefix")
}
#: The keys that Celery and kombu take from the query, and the client does not.
_OF_CELERY = {"credential_provider", "virtual_host"}

#: The kinds of addresses whose query may have options of TLS, for brokers and results.
_WITH_TLS = {True: {"redis", "rediss", "sentinel"}, False: {"rediss"}}
_REMEDIES = {
    "redis": "Write rediss:// instead of redis://.",
    "socket": "A UNIX socket has none: leave the option out.",
}


def parse_query(url: str) -> dict[str, str]:
    """Return the names and the values in the query of an address."""
    return dict(parse_qsl(url.partition("?")[2]))


def read_query(
    kind: str, url: str, tls_key: str, *, broker: bool
) -> tuple[str, list[str]]:
    """Return an address as the client takes it, and what is wrong with its query.

    A problem is the end of a sentence that begins with the name of a setting.

    Args:
        kind: ``"redis"``, ``"rediss"``, ``"sentinel"``, ``"socket"`` or ``"amqp"``.
        url: The address.
        tls_key: The key of the setting that may have options of TLS instead.
        broker: Whether it is the address of a broker, and not of a result backend.
    """
    if not (words := parse_query(url)):
        return url, []  # without an import of the client, which is slow
    result = dict(words)
    problems = []
    other = _KOMBU if broker and kind != "socket" else redis_options() | _OF_CELERY
    for name, value in words.items():
        instead = f"Write {tls_key}.{_option(name, kind)} instead."
        try:
            if name.startswith("ssl_") or (name == "ssl" and kind != "amqp"):
                if name == "ssl" or kind not in _WITH_TLS[broker]:
                    remedies = {} if name == "ssl" else _REMEDIES
                    remedy = remedies.get(kind, instead)
                    raise ValueError(f"turns on no TLS. {remedy}")
                result[name] = _read(name, value, instead)
            elif broker and name == "connect_timeout":
                remedy = "Set broker_connection_timeout instead."
                raise ValueError(f"stays a text there, and is no number. {remedy}")
            elif name not in other:
                raise ValueError(f"is unknown.{hint(name, other)}")
        except ValueError as error:
            problems.append(f"has {name} in its query, which {error}")
    if result != words:
        url = f"{url.partition('?')[0]}?{urlencode(result, safe='/')}"
    return url, problems


def _read(name: str, value: str, instead: str) -> str:
    """Return the text of an option of TLS, as Celery and kombu read it."""
    if name not in (known := redis_options()):
        raise ValueError(f"is unknown.{hint(name, known)}")
    read = read_option(name, value)
    if isinstance(read, VerifyMode):
        return read.name
    if isinstance(read, bool):
        return str(read).lower()
    if read != value:
        raise ValueError(f"would stay a text there. {instead}")
    return value


def _option(name: str, kind: str) -> str:
    name = "ssl_cert_reqs" if name == "ssl" else name
    return name.removeprefix("ssl_") if kind == "amqp" else name
