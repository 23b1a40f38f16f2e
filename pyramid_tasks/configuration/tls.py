"""The options of TLS: the strings of an ini become what the client of a broker takes.

A client looks at most options when it connects. Nothing here connects.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from inspect import signature
from typing import Any

from ..exceptions import near_names
from .kinds import did_you_mean
from .transport_options import read_boolean


def redis_options() -> set[str]:
    """Return what the installed client of Redis can be told about a connection."""
    from redis.connection import SSLConnection  # slow, for a web process

    inits = (vars(each).get("__init__") for each in SSLConnection.__mro__[:-1])
    names = {name for init in inits if init for name in signature(init).parameters}
    return names - {"self", "args", "kwargs"}


def sentinel_options() -> set[str]:
    """Return what the client of Redis can be told about the way to the sentinels."""
    from redis import Redis  # slow, for a web process

    return {*signature(Redis.__init__).parameters} - {"self", "host", "port"}


def amqp_options(options: Mapping[str, Any]) -> set[str]:
    """Return the names that py-amqp knows beside some options that are given."""
    from ._amqp import ssl_options  # an application without AMQP needs none

    if options.get("context"):
        socket = {*signature(ssl.SSLContext.wrap_socket).parameters}
        return socket - {"self", "sock"} | {"context"}
    return ssl_options()


def read_tls(
    options: Mapping[str, Any], known: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return options of TLS as a client takes them, and what it would refuse.

    A problem is the end of a sentence that begins with the name of a setting.

    Args:
        options: The options as the configuration has them.
        known: The names that the client knows.
    """
    result: dict[str, Any] = {}
    problems = []
    for name, value in options.items():
        if name not in known:
            unknown = f"has the option {name}, which is unknown.{hint(name, known)}"
            problems.append(unknown)
            continue
        try:
            result[name] = read_option(name, value)
        except ValueError as error:
            problems.append(f"has the option {name}, which {error}")
    if context := result.get("context"):
        inside = {*signature(ssl.create_default_context).parameters, "check_hostname"}
        result["context"], problems_inside = read_tls(context, inside)
        problems += problems_inside
    return result, problems or [*_combined(result)]


def read_option(name: str, value: Any) -> Any:
    """Return the value of one option as a client takes it.

    Args:
        name: The name of the option, with or without ``ssl_``.
        value: The value; ``None`` stays as it is.

    Raises:
        ValueError: The client would refuse the value.
    """
    reader = _READERS.get(name.removeprefix("ssl_"))
    return value if reader is None or value is None else reader(value)


def hint(name: str, known: Collection[str]) -> str:
    """Return what follows a sentence about a name that is not known."""
    bare = name.removeprefix("ssl_")
    twins = [each for each in (bare, f"ssl_{bare}") if each in known]
    near = twins or near_names(name, known)
    return f" Did you mean {near[0]}?" if near else " Leave the option out."


def _combined(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with options that are right one by one."""
    named = {name.removeprefix("ssl_"): name for name in options}
    given = {bare: options[name] for bare, name in named.items()}
    if given.get("keyfile") and not given.get("certfile"):
        yield "has the file of a key and none of its certificate: write both."
    elif given.get("certfile") and not _is_pair(given):
        yield (
            f"has the option {named['certfile']} and its key, which do not fit, or are "
            "no PEM files that this process can read."
        )
    for bare in ("ca_certs", "cafile"):
        if given.get(bare) and not _are_certificates(given[bare]):
            yield (
                f"has the option {named[bare]}, which is no PEM file of certificates "
                "that this process can read."
            )
    # For null, kombu takes the name in the address.
    is_checked = "server_hostname" in given or given.get("check_hostname")
    if is_checked and given.get("cert_reqs") == ssl.CERT_NONE:
        yield "has the name of the host checked, but cert_reqs = none: drop one."
    context = given.get("context") or {}
    if context.get("check_hostname") and not given.get("server_hostname"):
        yield "has a context with check_hostname: write server_hostname too."


def _is_pair(given: Mapping[str, Any]) -> bool:
    # A password in any case, or OpenSSL asks for one on the terminal.
    password = given.get("password") or ""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(given["certfile"], given.get("keyfile"), password)
    except OSError:
        return False
    return True


def _are_certificates(path: Any) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _constant(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a reader of constants of Python, by their names or their numbers."""
    values = {_word(name): value for name, value in known.items()}

    def read(value: Any) -> Any:
        text = str(value)
        word = _word(text)
        if word in values:
            return values[word]
        for constant in values.values():
            if text.isdecimal() and int(text) == constant:
                return constant
        raise ValueError(
            f"is not one of {', '.join(known)}.{did_you_mean(word, values)}"
        )

    return read


def _word(name: str) -> str:
    """Return ``required`` for ``ssl.CERT_REQUIRED``, and ``tlsv1_2`` for TLSv1.2."""
    word = name.strip().lower().replace("v1.", "v1_").rpartition(".")[2]
    return word.removeprefix("cert_").removeprefix("protocol_")


def _boolean(value: Any) -> bool:
    return bool(read_boolean(value))


def _flags(value: Any) -> list[Any]:
    words = re.findall(r"[\w.]+", value) if isinstance(value, str) else value
    return [*map(_FLAG, words)]


def _path(is_there: Callable[[Any], bool], what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)) or not is_there(value):
            # Without the value, which may be a key instead of its path.
            raise ValueError(f"is no {what} that is there: write a path.")
        return value

    return read


def _ciphers(value: Any) -> Any:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    except (ssl.SSLError, TypeError):
        raise ValueError("has no cipher that OpenSSL knows.") from None
    return value


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("is no dictionary.")  # noqa: TRY004 a value
    return value


def _address(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("is no name of a host.")  # noqa: TRY004 a value
    return value


_FILE = _path(os.path.isfile, "file")
_FOLDER = _path(os.path.isdir, "folder")
_MODE = _constant(
    {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }
)
_VERSION = _constant(
    {name: ssl.TLSVersion[name] for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3")}
)
_PROTOCOL = _constant(
    {name: getattr(ssl, name) for name in dir(ssl) if name.startswith("PROTOCOL_TLS")}
)
_FLAG = _constant(ssl.VerifyFlags.__members__)
#: By the names of the options without ``ssl_``.
_READERS: dict[str, Callable[[Any], Any]] = {
    "ca_certs": _FILE,
    "ca_path": _FOLDER,
    "cafile": _FILE,
    "capath": _FOLDER,
    "cert_reqs": _MODE,
    "certfile": _FILE,
    "check_hostname": _boolean,
    "ciphers": _ciphers,
    "context": _mapping,
    "do_handshake_on_connect": _boolean,
    "exclude_verify_flags": _flags,
    "include_verify_flags": _flags,
    "keyfile": _FILE,
    "min_version": _VERSION,
    "purpose": _constant(ssl.Purpose.__members__),
    "server_hostname": _address,
    "server_side": _boolean,
    "ssl": _boolean,
    "suppress_ragged_eofs": _boolean,
    "tls_maximum_version": _VERSION,
    "tls_minimum_version": _VERSION,
    "validate_ocsp": _boolean,
    "validate_ocsp_stapled": _boolean,
    "version": _PROTOCOL,
}
