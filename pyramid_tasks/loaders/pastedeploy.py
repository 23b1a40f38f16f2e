"""``[celery:NAME]`` in a PasteDeploy ini file: its factory, and its loader."""

from __future__ import annotations

import logging
import re
import traceback
from configparser import ConfigParser
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path

import plaster_pastedeploy
from celery import Celery

from ..application import PyramidCelery
from ..configuration.kinds import did_you_mean
from ..configuration.load import begin_load, report, report_setting, warn
from ..exceptions import LoadError
from ..settings import Settings, coerce_settings, merge_settings
from ._pastedeploy import APP_PREFIXES, CELERY, CeleryConfigLoader, as_text
from .errors import plain_errors, setting_source
from .logging_sections import find_misspelt, find_mistake
from .merge import add_sections
from .protocol import Variables, loaded_app
from .sections import check_defaults, check_sections, read_sections

logger = logging.getLogger(__name__)


def celery_factory(
    loader: CeleryConfigLoader,
    global_conf: dict[str, str],
    app: str = "main",
    **settings: str,
) -> Celery:
    """Load a Pyramid application and return its Celery application.

    The factory of ``use = egg:pyramid_tasks``.

    Args:
        loader: The reader of the file.
        global_conf: The variables and defaults of the file.
        app: The section ``[app:NAME]`` to load, or one that wraps it. Default,
            ``main``.
        settings: Celery settings, which win over ``celery.*`` of the application.

    Raises:
        LoadError: The section loads no application with tasks, or several.
        SettingError: A setting cannot be used.
    """
    own = coerce_settings(settings, report=report_setting)
    with begin_load(own, loader.celery_section) as load:
        section = f"[app:{app}]"
        with setting_source(f"{loader.filename}, {section}"):
            _load_app(loader, app, global_conf)
    return loaded_app(load, loader.filename, section)


def _check_variables(reader: CeleryConfigLoader, variables: dict[str, str]) -> None:
    """Report a value that has more variables in it, as an older package wrote them."""
    for name, value in variables.items():
        for other in re.findall(r",\s*(\w+)\s*=", value):
            if other not in variables and reader.uses(other):
                wrong = (
                    f"{reader.filename}: the variable {name} has {other} in its value. "
                    f"Pass each on its own: --ini-var {name}=... --ini-var {other}=... "
                    f"(to ptasks, {name}=... {other}=...)."
                )
                report(LoadError(wrong, reader.filename))


def _load_app(
    loader: CeleryConfigLoader, app: str, global_conf: dict[str, str]
) -> None:
    try:
        loader.get_app(app, global_conf=global_conf)
    except ModuleNotFoundError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        found = loader.find_key(str(error.name), "pyramid.includes")
        # Not an import in the code of the application.
        if not found or frame.f_globals.get("__name__") != "pyramid.path":
            raise
        section, key = found
        hint = did_you_mean(str(error.name), packages_distributions())
        message = f"there is no module {error.name}.{hint}"
        raise LoadError(
            f"{loader.filename}, [{section}], {key}: {message}", loader.filename
        ) from error


class Loader(plaster_pastedeploy.Loader):
    """The loader of PasteDeploy files, speaking the ``celery`` protocol."""

    def get_celery_app(
        self, name: str | None = None, defaults: Variables = None
    ) -> Celery:
        """Load ``[celery:NAME]``, or ``[app:NAME]`` if the file has no other."""
        name = name or self.uri.fragment or "main"
        with plain_errors(self.uri.path):
            reader, global_conf = self._read(defaults)
            sections = read_sections(reader)
            section = self._celery_section(reader, name)
            if section is None:
                app = celery_factory(reader, global_conf, app=name)
            else:
                context = reader.get_context(CELERY, name, global_conf)
                reader.celery_section = f"{self.uri.path}, [{section}]"
                with setting_source(reader.celery_section):
                    app = context.create()
                if not isinstance(app, Celery):
                    raise LoadError(
                        f"{self.uri.path}, [{section}]: the factory returned {app!r}, "
                        "not a Celery application.",
                        self.uri.path,
                    )
        add_sections(app, self.uri.path, sections)
        if isinstance(app, PyramidCelery):
            check_defaults(reader, app.registry.settings)
        return app

    def get_celery_app_settings(
        self, name: str | None = None, defaults: Variables = None
    ) -> Settings:
        """Return the Celery settings of ``[celery:NAME]``, schedules and routes too."""
        name = name or self.uri.fragment or "main"
        settings: Settings = {}
        with plain_errors(self.uri.path):
            reader, global_conf = self._read(defaults)
            section = self._celery_section(reader, name)
            if section is not None:
                conf = dict(reader.get_context(CELERY, name, global_conf).local_conf)
                conf.pop("app", None)
                with setting_source(f"{self.uri.path}, [{section}]"):
                    settings = coerce_settings(conf, report=report_setting)
            return merge_settings(settings, read_sections(reader))

    def get_sections(self) -> list[str]:
        """Return the names of the sections."""
        with plain_errors(self.uri.path):
            return list(super().get_sections())

    def setup_logging(self, defaults: Variables = None) -> None:
        """Set up logging from the file, as ``pserve`` does."""
        path = self.uri.path
        variables = as_text({**self.uri.options, **(defaults or {})})
        with plain_errors(path):
            try:
                super().setup_logging(variables)
            except Exception as error:
                mistake = None
                with suppress(Exception):  # an error of the application's own code
                    mistake = find_mistake(self._logging_sections(variables))
                if mistake:
                    raise LoadError(f"{path}, {mistake}", path) from error
                raise
            if "loggers" in self.get_sections():
                for mistake in find_misspelt(self._logging_sections(variables)):
                    warn(logger, LoadError(f"{path}, {mistake}", path))

    def _logging_sections(self, variables: dict[str, str]) -> ConfigParser:
        """Return the sections as ``logging.config.fileConfig`` reads them."""
        here = {"__file__": self.filepath, "here": str(Path(self.filepath).parent)}
        parser = ConfigParser({**here, **variables})
        parser.read(self.uri.path)
        return parser

    def _read(self, variables: Variables) -> tuple[CeleryConfigLoader, dict[str, str]]:
        reader = CeleryConfigLoader(self.uri.path)
        global_conf = {**self.uri.options, **(variables or {})}
        reader.update_defaults(as_text(global_conf), overwrite=False)
        _check_variables(reader, global_conf)
        check_sections(reader)
        return reader, global_conf

    def _celery_section(self, reader: CeleryConfigLoader, name: str) -> str | None:
        """Return ``[celery:NAME]``, or ``None`` if there is ``[app:NAME]`` alone."""
        sections = reader.parser.sections()
        if f"celery:{name}" in sections or (name == "main" and "celery" in sections):
            return reader.find_config_section(CELERY, name)
        if any(f"{prefix}:{name}" in sections for prefix in APP_PREFIXES):
            return None
        there = [
            f"[{section}]"
            for section in sections
            if section.partition(":")[0] in {*APP_PREFIXES, "celery"}
        ]
        raise LoadError(
            f"{self.uri.path} has neither [celery:{name}] nor [app:{name}]; it has "
            f"{', '.join(there) or 'no section for an application'}.",
            self.uri.path,
        )
