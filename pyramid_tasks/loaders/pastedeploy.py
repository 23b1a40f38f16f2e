"""``[celery:NAME]`` in a PasteDeploy ini file: object type, factory, loader."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import plaster_pastedeploy
from celery import Celery
from paste.deploy import loadwsgi
from paste.deploy.util import fix_call

from ..configuration.load import begin_load, report_setting, warn
from ..exceptions import LoadError
from ..settings import Settings, coerce_settings, merge_settings
from .errors import plain_errors, setting_source
from .protocol import Defaults, the_only
from .schedule import add_schedule
from .sections import read_routes, read_schedule, warn_of_misspelt

logger = logging.getLogger(__name__)


class _CeleryType(loadwsgi._ObjectType):  # noqa: SLF001 the base of every object type
    name = "celery"
    egg_protocols = ["paste.celery_factory"]  # noqa: RUF012 as in the base
    config_prefixes = ["celery"]  # noqa: RUF012 as in the base

    def invoke(self, context: loadwsgi.LoaderContext) -> Any:
        # With the loader, as for composites: a factory loads the application with it.
        return fix_call(
            context.object, context.loader, context.global_conf, **context.local_conf
        )


CELERY = _CeleryType()


class CeleryConfigLoader(loadwsgi.ConfigLoader):
    """PasteDeploy's reader of a file, in which ``[celery:NAME]`` may be short.

    ``[celery]`` is ``[celery:main]``, and a missing ``use`` is ``egg:pyramid_tasks``.
    """

    def get_context(
        self, object_type: Any, name: str | None = None, global_conf: Any = None
    ) -> loadwsgi.LoaderContext:
        if name and name.startswith("config:"):
            # use = config:other.ini#name, where a section may be just as short, and
            # which PasteDeploy itself would find only from an absolute path.
            path, _, name = name.removeprefix("config:").partition("#")
            other = CeleryConfigLoader(str(Path(self.filename).parent / unquote(path)))
            other.update_defaults(global_conf or {}, overwrite=False)
            return other.get_context(object_type, name or "main", global_conf)
        return super().get_context(object_type, name, global_conf)

    def find_config_section(self, object_type: Any, name: str | None = None) -> str:
        sections = self.parser.sections()
        if object_type is CELERY and name in {None, "main"} and "celery" in sections:
            if "celery:main" in sections:
                raise LoadError(
                    f"{self.filename} has both [celery] and [celery:main], which are "
                    "the same. Keep one.",
                    self.filename,
                )
            return "celery"
        return str(super().find_config_section(object_type, name))

    def _context_from_explicit(
        self, object_type: Any, local_conf: dict[str, str], *args: Any
    ) -> loadwsgi.LoaderContext:
        if object_type is CELERY and "paste.celery_factory" not in local_conf:
            local_conf["use"] = "egg:pyramid_tasks"
            return self._context_from_use(object_type, local_conf, *args)
        return super()._context_from_explicit(object_type, local_conf, *args)


def celery_factory(
    loader: loadwsgi.ConfigLoader,
    global_conf: dict[str, str],
    app: str = "main",
    **settings: str,
) -> Celery:
    """Load a Pyramid application and return its Celery application.

    What ``use = egg:pyramid_tasks`` names.

    Args:
        loader: The reader of the file.
        global_conf: The variables and defaults of the file.
        app: The section ``[app:NAME]`` to load, or one that wraps it.
        settings: Celery settings, which win over ``celery.*`` of the application.
    """
    with begin_load(coerce_settings(settings, report=report_setting)) as load:
        section = f"[app:{app}]"
        with setting_source(f"{loader.filename}, {section}"):
            loader.get_app(app, global_conf=global_conf)
    return the_only(load, loader.filename, section)


class Loader(plaster_pastedeploy.Loader):
    """The loader of PasteDeploy files, speaking the ``celery`` protocol."""

    def get_celery_app(
        self, name: str | None = None, defaults: Defaults = None
    ) -> Celery:
        """Load ``[celery:NAME]``, or ``[app:NAME]`` where there is none.

        Raises:
            LoadError: What the file names is not there.
            SettingError: A value in the file cannot be used.
        """
        name = self._maybe_get_default_name(name) or "main"
        with plain_errors(self.uri.path):
            reader, global_conf = self._read(defaults)
            schedule = read_schedule(reader)
            routes = read_routes(reader)
            section = self._celery_section(reader, name)
            if section is None:
                app = celery_factory(reader, global_conf, app=name)
            else:
                context = reader.get_context(CELERY, name, global_conf)
                with setting_source(f"{self.uri.path}, [{section}]"):
                    app = context.create()
                if not isinstance(app, Celery):
                    raise LoadError(
                        f"{self.uri.path}, [{section}]: the factory returned {app!r}, "
                        "not a Celery application.",
                        self.uri.path,
                    )
        if schedule:
            add_schedule(app, self.uri.path, schedule)
        if routes:
            self._route(app, routes)
        return app

    def get_celery_app_settings(
        self, name: str | None = None, defaults: Defaults = None
    ) -> Settings:
        """Return the Celery settings of ``[celery:NAME]``, schedules and routes too."""
        name = self._maybe_get_default_name(name) or "main"
        settings: Settings = {}
        with plain_errors(self.uri.path):
            reader, global_conf = self._read(defaults)
            section = self._celery_section(reader, name)
            if section is not None:
                conf = dict(reader.get_context(CELERY, name, global_conf).local_conf)
                conf.pop("app", None)
                with setting_source(f"{self.uri.path}, [{section}]"):
                    settings = coerce_settings(conf, report=report_setting)
            schedule, routes = read_schedule(reader), read_routes(reader)
        if schedule:
            settings = merge_settings(settings, {"beat_schedule": schedule})
        if routes:
            settings["task_routes"] = _with_routes(settings.get("task_routes"), routes)
        return settings

    def get_sections(self) -> list[str]:
        """Return the names of the sections."""
        with plain_errors(self.uri.path):
            return list(super().get_sections())

    def setup_logging(self, defaults: Defaults = None) -> None:
        """Set up logging from the file, as ``pserve`` does."""
        with plain_errors(self.uri.path):
            super().setup_logging(defaults)

    def _read(self, defaults: Defaults) -> tuple[CeleryConfigLoader, dict[str, str]]:
        global_conf = self._get_defaults(defaults)
        reader = CeleryConfigLoader(self.uri.path)
        reader.update_defaults(global_conf, overwrite=False)
        warn_of_misspelt(reader)
        return reader, global_conf

    def _celery_section(self, reader: CeleryConfigLoader, name: str) -> str | None:
        sections = reader.parser.sections()
        if f"celery:{name}" in sections or (name == "main" and "celery" in sections):
            return reader.find_config_section(CELERY, name)
        prefixes = [
            prefix for group in loadwsgi.APP.config_prefixes for prefix in group
        ]
        if any(f"{prefix}:{name}" in sections for prefix in prefixes):
            return None
        there = [
            f"[{section}]"
            for section in sections
            if section.partition(":")[0] in {*prefixes, "celery"}
        ]
        raise LoadError(
            f"{self.uri.path} has neither [celery:{name}] nor [app:{name}]; it has "
            f"{', '.join(there) or 'no section for an application'}.",
            self.uri.path,
        )

    def _route(self, app: Celery, routes: dict[str, dict[str, Any]]) -> None:
        app.conf.task_routes = _with_routes(app.conf.task_routes, routes)
        registry = getattr(app.loader, "registry", None)
        if registry and not registry.settings.get("pyramid_tasks.config_uri"):
            message = (
                f"{self.uri.path} has [celeryroute:...] sections, which a web process "
                "does not know of: add pyramid_tasks.config_uri = %(__file__)s to the "
                "section of the application."
            )
            warn(logger, LoadError(message, self.uri.path))


def _with_routes(existing: Any, routes: dict[str, dict[str, Any]]) -> Any:
    """Return Celery's ``task_routes`` with the routes of the file before the others."""
    if not existing:
        return routes
    if isinstance(existing, dict):
        return merge_settings(existing, routes)
    return [routes, *(existing if isinstance(existing, (list, tuple)) else [existing])]
