"""The addresses of brokers and result backends, as far as they can be checked.

A sentence about an address that cannot be read shows no part of the address: any part
may be one of the password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu.utils.url import maybe_sanitize_url

_NO_URL = (
    "is not a URL: write / # ? @ [ ] % in a password as %2F %23 %3F %40 %5B %5D %25, "
    "and each % twice in an ini. A port is a number."
)
_NO_BEGINNING = (
    "does not begin as a URL does: write redis://localhost/1, or such, without quotes "
    "and spaces."
)
_NO_NUMBER = "has a database that is not a number: write redis://localhost/1, or such."

#: The addresses that replace wrong addresses, so that one mistake is told once.
INSTEAD = {
    "broker_url": "memory://",
    "broker_read_url": "memory://",
    "broker_write_url": "memory://",
    "result_backend": "cache+memory://",
}

# A web process needs few of these patterns, and compiling one takes a while.

#: The scheme before ``://``; a colon only in the dotted name of a class for results.
_SCHEME = r"([a-zA-Z][\w+.-]*(:\w[\w+.-]*)?)://"
#: A scheme as kombu reads it when it leaves out the password.
_PLAIN_SCHEME = r"(?ia)[a-z][a-z0-9+.-]*://"
#: The name of a host, or of a class for results; one more server of memcached.
_NAME = r"[\w.:-]*/?"
#: RabbitMQ on a host needs no more than the name of the host, or its number.
_HOST = r"(?i)(?!(none|null)$)([\w.-]+|[\da-f:]*::[\da-f:.]*)"
#: Redis databases are numbers.
_REDIS = r"(redis|rediss|sentinel)\b"
#: Celery and kombu read these themselves: a key in them may have any character.
_OF_OWN_FORM = ("azure", "sqs", "confluentkafka", "gcpubsub")


def find_address(settings: Mapping[str, Any], name: str) -> tuple[Any, str, str | None]:
    """Return an address, the key that has it, and the source of a ``SettingError``.

    Celery takes an address from the environment first. For a setting, the source is
    ``None``.

    Args:
        settings: The settings of Celery, by the names of the settings.
        name: The setting, a key of :data:`INSTEAD`.
    """
    variable = f"CELERY_{name.upper()}"
    if value := os.environ.get(variable):
        return value, variable, "the environment"
    return settings.get(name), name, None


def check_address(value: Any) -> None:
    """Check the value of a setting that is an address, or several.

    Raises:
        ValueError: An address cannot be read.
    """
    several = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(each, (int, float, Mapping)) for each in several):
        raise ValueError(_NO_BEGINNING)
    if isinstance(value, (str, list, tuple)):
        for url in _several(value):
            _check(url)


def check_broker(value: Any) -> None:
    """Check the value of ``broker_url``, as :func:`check_address`."""
    check_address(value)
    for url in _several(value):
        if url and "://" not in url and not re.fullmatch(_HOST, url):
            raise ValueError(_NO_BEGINNING)


def shown(value: Any) -> str:
    """Return an address, or several, without passwords, for a message."""
    urls = _several(value)
    # Otherwise a part may be the rest of a password that has a semicolon.
    can_be_read = all(map(_can_be_read, urls))
    return ";".join(_shown(url) if can_be_read else _hidden(url) for url in urls)


def without_secrets(
    text: str, value: Any, unreadable: str = "it cannot be read"
) -> str:
    """Return an error about an address without the passwords in the address.

    Args:
        text: The error, as Celery has it.
        value: The address.
        unreadable: The text to return if nobody knows which part is a password.
    """
    for url in _several(value):
        if not _can_be_read(url):
            return unreadable
        if password := urlsplit(url).password:
            for each in password, unquote(password):
                text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", "**", text)
    return text


def _several(value: Any) -> list[str]:
    """Return the addresses in a setting, which has one or several."""
    each = map(str, value if isinstance(value, (list, tuple)) else (value,))
    return [
        url
        for urls in each
        for url in ([urls] if _has_own_form(urls) else urls.split(";"))
    ]


def _has_own_form(url: str) -> bool:
    begins = url.startswith(_OF_OWN_FORM)
    return begins and re.match(r"[\w.+-]*://", url) is not None


def _shown(url: str) -> str:
    if "://" in url and not re.match(_PLAIN_SCHEME, url):
        return _hidden(url)
    try:
        # A user without a password is often a password without a user.
        return re.sub("://[^:/@]+@", "://**@", str(maybe_sanitize_url(url)))
    except ValueError:  # of several hosts
        return _hidden(url)


def _hidden(url: str) -> str:
    scheme = re.match(_SCHEME, url)
    return f"{scheme[0] if scheme else ''}********"


def _can_be_read(url: str) -> bool:
    """Whether the parts of an address are known; otherwise any may be a password."""
    try:
        check_address(url)
    except ValueError:
        return False
    return not _has_own_form(url)


def _check(url: str) -> None:
    if _has_own_form(url):
        return
    scheme, separator, rest = url.partition("://")
    if not (re.match(_SCHEME, url) if separator else re.fullmatch(_NAME, url)):
        raise ValueError(_NO_BEGINNING)
    try:
        # As kombu does. MongoDB has several hosts, with a comma between them.
        first = re.sub(",[^/]*", "", rest) if "," in rest else rest
        parts = urlsplit(f"http://{first}")
        parts.port  # noqa: B018 the property reads the number
    except ValueError:
        raise ValueError(_NO_URL) from None
    # The rest of a password after a slash, or the like.
    if "@" not in parts.netloc and ":" in parts.netloc and "@" in rest:
        raise ValueError(_NO_URL)
    database = parts.path.strip("/")
    is_redis = scheme.startswith(("redis", "sentinel")) and re.match(_REDIS, scheme)
    is_file = "socket" in scheme
    if is_redis and not is_file and database and not database.isdecimal():
        raise ValueError(_NO_NUMBER)
