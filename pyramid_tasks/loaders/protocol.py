"""The loader protocol ``celery``, and the adapter for loaders without the protocol."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import plaster
from importlib_metadata import entry_points

from ..configuration.load import Load, begin_load, report_setting
from ..exceptions import ConfigFileNotFound, LoadError
from ..settings import Settings, coerce_settings
from .errors import plain_errors, setting_source
from .sections import check_others

if TYPE_CHECKING:
    from celery import Celery

#: Variables for ``%(variable)s`` in a file. Plaster calls them defaults.
Variables = dict[str, str] | None


class CeleryLoader(Protocol):
    """The methods of a loader that can load a Celery application.

    The names follow ``get_wsgi_app`` and ``get_wsgi_app_settings`` of plaster's wsgi
    protocol. A package publishes its loader in the entry-point group
    ``plaster.celery_loader_factory``, under the scheme of the URIs that it loads.
    """

    def get_celery_app(
        self, name: str | None = None, defaults: dict[str, str] | None = None
    ) -> Celery:
        """Load the application and return its Celery application.

        Args:
            name: The name of the Celery application. Default, the fragment of the URI.
            defaults: Variables for the file. Default, none.

        Raises:
            LoadError: The file names no such application.
        """

    def get_celery_app_settings(
        self, name: str | None = None, defaults: dict[str, str] | None = None
    ) -> Settings:
        """Return the Celery settings of the file, without the application's settings.

        A web process reads them by ``pyramid_tasks.config_uri``.

        Args:
            name: As for :meth:`get_celery_app`.
            defaults: As for :meth:`get_celery_app`.

        Raises:
            LoadError: The file names no such application.
        """

    def get_sections(self) -> list[str]:
        """Return the names of the sections."""

    def setup_logging(self, defaults: dict[str, str] | None = None) -> None:
        """Set up logging from the file."""


def find_loader(config_uri: str) -> CeleryLoader:
    """Return the loader for a config URI.

    Raises:
        ConfigFileNotFound: The file does not exist.
        LoadError: No loader for its format is installed.
    """
    try:
        url = plaster.parse_uri(config_uri)
        if url.scheme.startswith("file+") and not Path(url.path).is_file():
            raise ConfigFileNotFound(f"{url.path}: there is no such file.", config_uri)
        # The look-up of plaster also counts the loaders of the general group, and so
        # finds two for an ini.
        for entry_point in entry_points(group="plaster.celery_loader_factory"):
            if entry_point.name == url.scheme:
                return cast("CeleryLoader", entry_point.load()(url))
        loader = plaster.get_loader(url)
    except plaster.PlasterError as error:
        reason = str(error).rstrip(".")
        message = f"{config_uri}: {reason}. Install a plaster loader for this format."
        raise LoadError(message, config_uri) from error
    except LoadError:
        raise
    except Exception as error:  # of a loader that reads the file at once
        reason = " ".join(str(error).split())
        raise LoadError(f"{config_uri} cannot be read: {reason}", config_uri) from error
    return loader if hasattr(loader, "get_celery_app") else AdaptedLoader(url)


def loaded_app(load: Load, config_uri: str, section: str) -> Celery:
    """Return the Celery application of a finished load.

    Raises:
        LoadError: The load created no application, or several.
    """
    if not load.created:
        message = (
            f"{config_uri}: the application of {section} does not include "
            'pyramid_tasks. Call config.include("pyramid_tasks"), or add it to '
            "pyramid.includes."
        )
        raise LoadError(message, config_uri)
    if len(load.created) > 1:
        packages = ", ".join(registry.package_name for _, registry in load.created)
        message = (
            f"{config_uri}: {section} loads {len(load.created)} applications that "
            f"include pyramid_tasks ({packages}). Name the section of one: app = NAME."
        )
        raise LoadError(message, config_uri)
    app, _ = load.created[0]
    return app


class AdaptedLoader:
    """The protocol for any loader that can load a WSGI application.

    The section ``celery:NAME`` or ``celery`` holds Celery settings, and the key
    ``app``, as ``[celery:NAME]`` does in an ini.
    """

    def __init__(self, url: plaster.PlasterURL) -> None:
        self._uri = str(url)
        self._name = url.fragment or None
        # The fragment names the Celery section. The loader would take it for the name
        # of the application.
        unnamed = plaster.PlasterURL(url.scheme, url.path, url.options)
        self._loader = plaster.get_loader(unnamed)
        self._readers = type(self._loader).__module__

    def get_sections(self) -> list[str]:
        try:
            return [str(each) for each in self._loader.get_sections()]
        except (AttributeError, TypeError) as error:
            problem = "has no sections. Write app:, and below it the settings."
            raise LoadError(f"{self._uri} {problem}", self._uri) from error

    def setup_logging(self, defaults: Variables = None) -> None:
        with plain_errors(self._uri, self._readers):
            try:
                self._loader.setup_logging(defaults)
            except ValueError as error:  # of dictConfig, which has the reason apart
                if error.__cause__ is None:
                    raise
                raise ValueError(f"{error}: {error.__cause__}") from error

    def get_celery_app(
        self, name: str | None = None, defaults: Variables = None
    ) -> Celery:
        name = name or self._name
        section = self._section(name)
        if section is None:
            app_name = name
        else:
            app_name = self._settings(section, defaults).get("app")
        sections = self.get_sections()
        wanted = (app_name, f"app:{app_name}") if app_name else ("app", "app:main")
        app_section = next((each for each in sections if each in wanted), None)
        # Only a name that was given can be missing, and only in a format with sections.
        if app_name and sections and not app_section:
            raise LoadError(
                f"{self._uri} has no section {app_name!r}; it has "
                f"{', '.join(sections)}.",
                self._uri,
            )
        settings = self.get_celery_app_settings(name, defaults)
        check_others(self._uri, sections)
        if app_section:
            self._settings(app_section, defaults)  # for its errors, which name it
        with (
            begin_load(settings, f"{self._uri}, section {section!r}") as load,
            plain_errors(self._uri, self._readers),
            setting_source(f"{self._uri}, section {app_section!r}")
            if app_section
            else nullcontext(),
        ):
            self._loader.get_wsgi_app(app_name, defaults)
        return loaded_app(load, self._uri, f"app {app_name or 'main'!r}")

    def get_celery_app_settings(
        self, name: str | None = None, defaults: Variables = None
    ) -> Settings:
        section = self._section(name or self._name)
        if section is None:
            return {}
        conf = self._settings(section, defaults)
        for key in ("use", "app"):
            conf.pop(key, None)
        with setting_source(f"{self._uri}, section {section!r}"):
            return coerce_settings(conf, report=report_setting)

    def _settings(self, section: str, variables: Variables) -> Settings:
        try:
            with plain_errors(self._uri, self._readers):
                return dict(self._loader.get_settings(section, variables))
        except LoadError as error:
            cause = error.__cause__
            if isinstance(cause, KeyError) or "format" in str(cause):
                problem = (
                    "has a value with %(here)s and another percent sign: only "
                    "%(here)s and %(__file__)s stand for something there, and each "
                    "other percent sign must be doubled: %%."
                )
            elif isinstance(cause, (AttributeError, TypeError)):
                problem = "has no settings. Write each below it, as NAME: VALUE."
            else:
                raise
            raise LoadError(
                f"{self._uri}, section {section!r} {problem}", self._uri
            ) from error

    def _section(self, name: str | None) -> str | None:
        is_main = name in {None, "main"}
        wanted = {"celery", "celery:main"} if is_main else {f"celery:{name}"}
        return next((each for each in self.get_sections() if each in wanted), None)
