"""The contexts that ``pyramid_tasks.context`` switches on, and ``base_url``."""

from __future__ import annotations

import re
import reprlib
from numbers import Number
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import UUID

from pyramid.request import Request

from ..exceptions import SettingError
from ..worker.environ import HOST_KEYS, LAST_PORT, is_host_part
from ..worker.request import DEFERRED_BY, get_runner
from .kinds import did_you_mean
from .load import reporting
from .own_settings import names_setting

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from ..registry import Capture, Restore

# pyramid.scripting makes this host up for scripts, and for tasks without a base_url. No
# browser sends it, as a browser leaves out the port 80.
_BLANK = Request.blank("/").environ
_NO_HOST = {key: _BLANK[key] for key in HOST_KEYS}

_BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[\da-f:.]+\]|[^\s/?#@:[\]]+)"
    r"(:(?P<port>\d{1,5}))?(?P<path>(/[^\s?#]*)?)",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}

# A tag as in HTTP or as in gettext: de, pt-BR, zh_Hans_TW, sr@latin, de_DE.UTF-8.
# Pyramid makes a path of it.
_LOCALE = re.compile(r"[a-z]{1,8}([-_.@][a-z0-9]{1,16}){0,8}", re.ASCII | re.IGNORECASE)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def capture_host(request: Request) -> dict[str, str] | None:
    """Return the parts of the environ that the URLs of a request are made of.

    A part that no task would take stays behind: a browser may say any host, and a
    server on a Unix socket may have a path for its port.
    """
    environ = request.environ
    host = {
        key: environ[key]
        for key in HOST_KEYS
        if key in environ and is_host_part(key, environ[key])
    }
    return host if host and host != _NO_HOST else None


def restore_host(request: Request, value: Any) -> None:
    """Give a request the host of the request that deferred its task."""
    if not isinstance(value, dict) or not all(
        is_host_part(key, part) for key, part in value.items()
    ):
        raise _wrong_value("host", "host", value)
    # HTTP/1.0 has no Host, and a server can leave out an empty SCRIPT_NAME. The values
    # of base_url must not take their place.
    for key in ("HTTP_HOST", "SCRIPT_NAME"):
        request.environ.pop(key, None)
    request.environ.update(value)


def capture_locale(request: Request) -> str | None:
    """Return the locale of a request, unless it is a text that a browser made up."""
    name = request.locale_name
    return str(name) if name is not None and _LOCALE.fullmatch(str(name)) else None


def restore_locale(request: Request, value: Any) -> None:
    """Give a request a locale, without asking its locale negotiator."""
    if not isinstance(value, str) or not _LOCALE.fullmatch(value):
        raise _wrong_value("locale", "locale", value)
    request.locale_name = value


def capture_user(request: Request) -> Any:
    """Return the userid of a request.

    Raises:
        TypeError: A task would not take it.
    """
    userid = request.authenticated_userid
    if userid is not None and not _is_userid(userid):
        raise TypeError(
            "The task context 'user' cannot travel: a userid must be a string without "
            f"control characters, a number or a UUID, not {reprlib.repr(userid)}"
        )
    return userid


def restore_user(request: Request, value: Any) -> None:
    """Give a request a userid, as ``deferred_by`` and as ``REMOTE_USER``."""
    if not _is_userid(value):
        raise _wrong_value("user", "userid", value)
    request.environ[DEFERRED_BY] = value
    request.environ["REMOTE_USER"] = str(value)


def _wrong_value(context: str, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"The message has a task context {context!r} that is no {expected}: "
        f"{reprlib.repr(value)}"
    )


def _is_userid(value: Any) -> bool:
    if isinstance(value, str):
        return not _CONTROL.search(value)
    return isinstance(value, (Number, UUID)) and not isinstance(value, bool)


CONTEXTS: dict[str, tuple[Capture, Restore]] = {
    "host": (capture_host, restore_host),
    "locale": (capture_locale, restore_locale),
    "user": (capture_user, restore_user),
}


def environ_of(base_url: str) -> dict[str, Any]:
    """Return the environ of a request for the URL of an application.

    Raises:
        SettingError: The URL is not absolute.
    """
    match = _BASE_URL.fullmatch(base_url)
    if not match or not 0 < int(match["port"] or LAST_PORT) <= LAST_PORT:
        raise SettingError(
            "pyramid_tasks.base_url",
            f"= {base_url} is not the URL of an application, such as "
            "https://example.com or https://example.com/app.",
        )
    scheme, host, port = match["scheme"].lower(), match["host"], match["port"]
    default = _DEFAULT_PORTS[scheme]
    return {
        **_BLANK,
        "wsgi.url_scheme": scheme,
        "HTTP_HOST": host if port in {None, default} else f"{host}:{port}",
        "SERVER_NAME": host,
        "SERVER_PORT": port or default,
        # WSGI has UTF-8 here, read as Latin-1.
        "SCRIPT_NAME": unquote(match["path"].rstrip("/")).encode().decode("latin-1"),
    }


def includeme(config: Configurator) -> None:
    """Switch on the contexts that the settings name."""
    settings = config.get_settings()
    with reporting():
        for name in names_setting(settings, "context", "a list of names of contexts"):
            with reporting():
                _switch_on(config, name)
    if base_url := settings.get("pyramid_tasks.base_url"):
        with reporting():
            get_runner(config.registry).base_environ = environ_of(str(base_url))


def _switch_on(config: Configurator, name: str) -> None:
    if name not in CONTEXTS:
        hint = did_you_mean(name, CONTEXTS)
        raise SettingError(
            "pyramid_tasks.context",
            f"= {name} is not one of host, locale and user.{hint} What the application "
            "adds with config.add_task_context() always travels, and is not listed.",
        )
    config.add_task_context(name, *CONTEXTS[name])
