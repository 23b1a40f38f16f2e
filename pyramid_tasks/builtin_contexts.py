"""The contexts that ``pyramid_tasks.context`` switches on, and ``base_url``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pyramid.request import Request
from pyramid.settings import aslist

from .exceptions import SettingError
from .registry import get_tasks

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from .context import Capture, Restore

#: Where a request has the userid of the one that deferred its task.
DEFERRED_BY = "pyramid_tasks.deferred_by"

_HOST_KEYS = (
    "wsgi.url_scheme",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
)

# The host of Request.blank(), and so of scripts, beat and tasks: no host at all. A
# browser leaves out the port 80.
_NO_HOST = Request.blank("/").environ["HTTP_HOST"]


def capture_host(request: Request) -> dict[str, str] | None:
    """Return what the URLs of a request are made of."""
    environ = request.environ
    if environ.get("HTTP_HOST") == _NO_HOST:
        return None
    return {key: environ[key] for key in _HOST_KEYS if key in environ} or None


def restore_host(request: Request, value: Any) -> None:
    """Give a request that host."""
    if not isinstance(value, dict) or not all(
        key in _HOST_KEYS and isinstance(part, str) for key, part in value.items()
    ):
        raise ValueError(f"The task context 'host' is none: {value!r}")
    request.environ.update(value)


def capture_locale(request: Request) -> str:
    """Return the locale of a request."""
    return str(request.locale_name)


def restore_locale(request: Request, value: Any) -> None:
    """Give a request that locale, whatever its locale negotiator would find."""
    if not isinstance(value, str):
        raise ValueError(f"The task context 'locale' is none: {value!r}")  # noqa: TRY004 as the others
    request.locale_name = value


def capture_user(request: Request) -> Any:
    """Return the userid of a request."""
    return request.authenticated_userid


def restore_user(request: Request, value: Any) -> None:
    """Give a request that userid: as ``deferred_by`` and as ``REMOTE_USER``."""
    request.environ[DEFERRED_BY] = value
    request.environ["REMOTE_USER"] = str(value)


CONTEXTS: dict[str, tuple[Capture, Restore]] = {
    "host": (capture_host, restore_host),
    "locale": (capture_locale, restore_locale),
    "user": (capture_user, restore_user),
}


def environ_of(base_url: str) -> dict[str, Any]:
    """Return the environ of a request for a URL.

    Raises:
        SettingError: It is not an absolute URL.
    """
    parts = urlsplit(base_url)
    try:
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        environ: dict[str, Any] = Request.blank("/", base_url=base_url).environ
    except ValueError:
        valid = False
    if not valid or parts.username is not None:
        raise SettingError(
            "pyramid_tasks.base_url",
            f"= {base_url} is not the URL of an application, such as "
            "https://example.com or https://example.com/app.",
        )
    # Without the default port, as a browser sends it.
    environ["HTTP_HOST"] = parts.netloc
    return environ


def includeme(config: Configurator) -> None:
    """Switch on what the settings ask for."""
    settings = config.get_settings()
    for name in aslist(settings.get("pyramid_tasks.context", ())):
        if name not in CONTEXTS:
            near = get_close_matches(name, CONTEXTS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingError(
                "pyramid_tasks.context",
                f"= {name} is none of host, locale and user.{hint} Others are added "
                "with config.add_task_context().",
            )
        config.add_task_context(name, *CONTEXTS[name])
    if base_url := settings.get("pyramid_tasks.base_url"):
        get_tasks(config.registry).runner.base_environ = environ_of(base_url)
