"""The settings about the connections to the broker and to the result backend.

A client refuses or ignores some when it connects. Nothing here connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..exceptions import SettingError, near_names
from .addresses import INSTEAD, find_address
from .transport_options import read_transport_options

if TYPE_CHECKING:
    from ..settings import Report

# Few applications use TLS or queries, so their modules are imported when one does.

_REDIS = {"redis", "rediss", "sentinel", "socket"}
_KINDS = {name: name for name in _REDIS} | {
    "redis+socket": "socket",
    **dict.fromkeys(("amqp", "amqps", "pyamqp"), "amqp"),
}


def check_connections(
    settings: dict[str, Any], report: Report, key_of: Callable[[str], str]
) -> None:
    """Report settings that make a client fail, or that it ignores.

    The options of TLS become what the clients take.

    Args:
        settings: The settings of Celery, by the names of the settings.
        report: Called with each mistake, whose key is the name of a setting.
        key_of: Returns the key that the configuration has for a setting.
    """
    for side in _Broker, _Results:
        side(settings, report, key_of).check()


class _Side:
    """The settings about the broker, or those about the result backend.

    Attributes:
        urls: The settings that are addresses.
        options: The setting with the options of the transport.
        tls: The setting with the options of TLS.
    """

    is_broker: bool
    urls: tuple[str, ...]
    options: str
    tls: str

    def __init__(
        self,
        settings: dict[str, Any],
        report: Report,
        key_of: Callable[[str], str],
    ) -> None:
        self.settings = settings
        self._report = report
        self.key_of = key_of
        self.wrong = False

    def check(self) -> None:
        options = self.settings.get(self.options)
        if options and isinstance(options, Mapping):
            read = read_transport_options(self.options, options, self._report)
            self.settings[self.options] = read
        kinds = self.default() | {
            kind for name in self.urls for kind in self._addresses(name)
        }
        if kinds and self.settings.get(self.tls):
            self.use_tls(kinds)
        if "sentinel" in kinds:
            self._sentinel()
        if self.wrong:  # so that what follows reports no mistake twice
            for name in self.urls:
                if self.settings.get(name):
                    self.settings[name] = INSTEAD[name]

    def default(self) -> set[str]:
        """Return the kinds of server used when no address is set."""
        return set()

    def read_address(self, kind: str, url: str) -> tuple[str, list[str]]:
        """Return an address as the client takes it, and what is wrong with it."""
        if "?" not in url:
            return url, []
        from .url_queries import read_query

        return read_query(kind, url, self.key_of(self.tls), broker=self.is_broker)

    def nested(self, setting: str, option: str) -> str:
        """Return the key of an option."""
        return f"{self.key_of(setting)}.{option}"

    def report(self, key: str, *problems: str, source: str | None = None) -> None:
        """Report what is wrong with a setting."""
        for problem in problems:
            self.wrong = True
            self._report(SettingError(key, problem, source))

    def _addresses(self, name: str) -> Iterator[str]:
        """Read the addresses in a setting, and yield their kinds."""
        value, key, source = find_address(self.settings, name)
        if not isinstance(value, (str, list, tuple)):
            return
        several = value.split(";") if isinstance(value, str) else [*value]
        for index, url in enumerate(several):
            kind = _kind(url)
            if kind:
                several[index], problems = self.read_address(kind, url)
                self.report(key, *problems, source=source)
                yield kind
        if not source:
            is_one = isinstance(value, str)
            self.settings[name] = ";".join(several) if is_one else several

    def use_tls(self, kinds: set[str]) -> None:
        """Read the options of TLS."""
        from .tls import amqp_options, read_tls, redis_options

        options = self.settings[self.tls]
        if not isinstance(options, Mapping):
            if kinds & _REDIS:
                self.report(
                    self.tls,
                    "= true turns on no TLS for Redis: write rediss:// in the address, "
                    f"and {self.nested(self.tls, 'ssl_cert_reqs')} = required instead.",
                )
        elif "socket" in kinds:
            problem = "has options, and a UNIX socket has no TLS: leave them out."
            self.report(self.tls, problem)
        else:
            redis = kinds & _REDIS
            known = redis_options() if redis else amqp_options(options)
            self.settings[self.tls], problems = read_tls(options, known)
            self.report(self.tls, *problems)

    def _sentinel(self) -> None:
        options = self.settings.get(self.options) or {}
        if not options.get("master_name"):
            names = [str(name) for name in options if name != "master_name"]
            if near := near_names("master_name", names):
                problem = (
                    f"has the option {near[0]}, which is unknown. Did you mean "
                    "master_name?"
                )
            else:
                problem = (
                    "lacks the name of the master that the sentinels watch: write "
                    f"{self.nested(self.options, 'master_name')} = NAME."
                )
            self.report(self.options, problem)
        given = options.get("sentinel_kwargs") or {}
        if not isinstance(given, Mapping):
            problem = (
                'has sentinel_kwargs, which is no dictionary: write {"ssl": true}.'
            )
            self.report(self.options, problem)
            return
        from .tls import read_tls, sentinel_options

        read, problems = read_tls(given, sentinel_options())
        if any(name.startswith("ssl_") for name in read) and not read.get("ssl"):
            problem = 'has ssl_ options without "ssl": true, and so no TLS: add that.'
            problems.append(problem)
        retries = read.get("retry")
        if isinstance(retries, int):
            read["retry"] = retry_at_once(retries)
        elif isinstance(retries, str):
            problems.append("has the option retry, which is no number.")
        for problem in problems:
            inside = problem.replace("has ", "has sentinel_kwargs, which has ", 1)
            self.report(self.options, inside)
        if given:
            self.settings[self.options] = {**options, "sentinel_kwargs": read}


class _Broker(_Side):
    is_broker = True
    urls = ("broker_url", "broker_read_url", "broker_write_url")
    options = "broker_transport_options"
    tls = "broker_use_ssl"

    def default(self) -> set[str]:
        urls = [find_address(self.settings, name)[0] for name in self.urls]
        is_given = any(urls) or self.settings.get("broker_transport")
        return set() if is_given else {"amqp"}


class _Results(_Side):
    is_broker = False
    urls = ("result_backend",)
    options = "result_backend_transport_options"
    tls = "redis_backend_use_ssl"

    def read_address(self, kind: str, url: str) -> tuple[str, list[str]]:
        url, problems = super().read_address(kind, url)
        given = self.settings.get(self.tls)
        given = given if isinstance(given, Mapping) else {}
        if kind == "rediss":
            from .url_queries import parse_query

            if "ssl_cert_reqs" not in {*parse_query(url), *given}:
                problem = f"has rediss:// without ssl_cert_reqs. {self._needed()}"
                problems.append(problem)
        # Before 5.7, Celery refuses options of TLS beside redis://.
        if kind == "redis" and given:
            url = f"rediss{url.removeprefix('redis')}"
        return url, problems

    def use_tls(self, kinds: set[str]) -> None:
        given = self.settings[self.tls]
        super().use_tls(kinds)
        is_given = isinstance(given, Mapping) and kinds & {"redis", "sentinel"}
        if is_given and "ssl_cert_reqs" not in given:
            self.report(self.tls, f"lacks ssl_cert_reqs. {self._needed()}")

    def _needed(self) -> str:
        key = self.nested(self.tls, "ssl_cert_reqs")
        return f"Celery needs it for results: write {key} = required."


def _kind(url: Any) -> str | None:
    """Return the kind of an address, if it is one of Redis or RabbitMQ."""
    kind = _KINDS.get(url.partition("://")[0]) if isinstance(url, str) else None
    return kind if kind not in _REDIS or find_spec("redis") else None


def retry_at_once(retries: int) -> Any:
    """Return what tells the client of Redis how often it tries again, at once."""
    from redis.backoff import NoBackoff  # slow, for a web process
    from redis.retry import Retry

    return Retry(NoBackoff(), retries)
