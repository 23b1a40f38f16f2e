"""The keys that a message may set in a request's environ: the parts of URLs.

A message could come from anyone. So the keys are listed, and each value is checked.
"""

from __future__ import annotations

import re
from typing import Any

# No spaces, no control characters, and nothing that ends the host of a URL.
_HOST = r"[^\s\x00-\x1f\x7f-\x9f/?#@\\]+"

#: Each key, and what its value looks like.
HOST_KEYS = {
    "wsgi.url_scheme": "https?",
    "HTTP_HOST": _HOST,
    "SERVER_NAME": _HOST,
    "SERVER_PORT": "[0-9]{1,5}",
    # WSGI has UTF-8 here, read as Latin-1: \x80 to \x9f are parts of letters.
    "SCRIPT_NAME": r"(/[\x20-\x7e\x80-\xff]*)?",
}

LAST_PORT = 65535


def is_host_part(key: Any, value: Any) -> bool:
    """Tell whether a key of the environ, with its value, is a part of a URL's start."""
    if key not in HOST_KEYS or not isinstance(value, str):
        return False
    if not re.fullmatch(HOST_KEYS[key], value):
        return False
    # Half a character: a pattern with the range of them takes long to compile.
    if not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
        return False
    return key != "SERVER_PORT" or 0 < int(value) <= LAST_PORT


def environ_header(headers: Any) -> dict[str, str]:
    """Return the header ``environ`` of a message.

    Args:
        headers: The headers of the message.

    Raises:
        TypeError: The header is no dictionary of strings.
        ValueError: The header has another key, or a value that cannot be right.
    """
    if not headers:
        return {}
    if not isinstance(headers, dict):
        raise TypeError("The headers of the message must be a dictionary")
    environ = headers.get("environ") or {}
    if not isinstance(environ, dict) or not all(
        isinstance(item, str) for pair in environ.items() for item in pair
    ):
        raise TypeError("The header 'environ' must be a dictionary of strings")
    for key, value in environ.items():
        if key not in HOST_KEYS:
            raise ValueError(
                f"The header 'environ' must not set {key[:80]!r}, only "
                f"{', '.join(HOST_KEYS)}"
            )
        if not is_host_part(key, value):
            raise ValueError(f"The header 'environ' has a {key} that cannot be right")
    return environ
