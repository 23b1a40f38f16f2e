"""The addresses of brokers and result backends, as far as they can be checked.

A sentence about an address that cannot be read shows no part of the address: any part
may be one of the password.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from kombu.utils.url import maybe_sanitize_url

_NO_URL = (
    "is not a URL: write / # ? @ [ ] % in a password as %2F %23 %3F %40 %5B %5D %25, "
    "and each % twice in an ini. A port is a number."
)
_NO_NUMBER = "has a database that is not a number: write redis://localhost/1, or such."

#: Redis databases are numbers.
_REDIS = re.compile(r"(redis|rediss|sentinel)\b")
#: Celery and kombu read these themselves: a key in them may have any character.
_OWN_FORM = re.compile(r"azure|sqs|confluentkafka|gcpubsub")


def check_address(value: Any) -> None:
    """Check the value of a setting that is an address, or several.

    Raises:
        ValueError: An address cannot be read.
    """
    several = value.split(";") if isinstance(value, str) else value
    for url in several if isinstance(several, (list, tuple)) else ():
        if isinstance(url, str) and "://" in url:
            _check(url)


def shown(value: Any) -> str:
    """Return an address, or several, without passwords, for a message."""
    return ";".join(map(_shown, str(value).split(";")))


def without_secrets(text: str, value: Any) -> str:
    """Return an error about an address without the passwords in the address.

    Args:
        text: The error, as Celery has it.
        value: The address.
    """
    for url in str(value).split(";"):
        if not _can_be_read(url):
            return "it cannot be read"
        if password := urlsplit(url).password:
            text = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "**", text)
    return text


def _shown(url: str) -> str:
    try:
        if _can_be_read(url):
            return str(maybe_sanitize_url(url))
    except ValueError:  # of several hosts
        pass
    scheme, separator, _ = url.partition("://")
    return f"{scheme if separator else ''}{separator}********"


def _can_be_read(url: str) -> bool:
    """Whether the parts of an address are known; otherwise any may be a password."""
    try:
        check_address(url)
    except ValueError:
        return False
    return not _OWN_FORM.match(url)


def _check(url: str) -> None:
    scheme, _, rest = url.partition("://")
    if _OWN_FORM.match(scheme):
        return
    try:
        # As kombu does. MongoDB has several hosts, with a comma between them.
        parts = urlsplit(f"http://{re.sub(',[^/]*', '', rest)}")
        parts.port  # noqa: B018 the property reads the number
    except ValueError:
        raise ValueError(_NO_URL) from None
    # The rest of a password after a slash, or the like.
    if "@" not in parts.netloc and ":" in parts.netloc and "@" in rest:
        raise ValueError(_NO_URL)
    database = parts.path.strip("/")
    is_redis = _REDIS.match(scheme) and "socket" not in scheme
    if is_redis and database and not database.isdecimal():
        raise ValueError(_NO_NUMBER)
