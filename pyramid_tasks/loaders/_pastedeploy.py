"""The names of PasteDeploy that its documentation does not have.

Nothing else in the package uses these. PasteDeploy has no public way to add a kind of
section. The module was tried on PasteDeploy 3.0 and 3.1. It needs:

- ``loadwsgi._ObjectType``, the base class of every kind of section, with the attributes
  ``egg_protocols`` and ``config_prefixes`` and the method ``invoke``;
- ``ConfigLoader.get_context``, ``find_config_section`` and ``_context_from_explicit``,
  which the reader below overrides, and ``_context_from_use``, which it calls;
- ``LoaderContext.create``, which the reader replaces;
- ``loadwsgi.APP.config_prefixes``, the prefixes of sections for an application;
- ``util.fix_call``, which adds the signature of a factory to its ``TypeError``.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from paste.deploy import loadwsgi
from paste.deploy.util import fix_call

from ..exceptions import LoadError

__all__ = ["APP_PREFIXES", "CELERY", "CeleryConfigLoader", "as_text"]


class _CeleryType(loadwsgi._ObjectType):
    name = "celery"
    egg_protocols = ["paste.celery_factory"]  # noqa: RUF012 as in the base
    config_prefixes = ["celery"]  # noqa: RUF012 as in the base

    def invoke(self, context: loadwsgi.LoaderContext) -> Any:
        # A factory gets the loader, as for composites: it loads the application.
        return fix_call(
            context.object, context.loader, context.global_conf, **context.local_conf
        )


#: The kind of section that ``[celery:NAME]`` is.
CELERY = _CeleryType()

#: The prefixes of the sections that make a WSGI application.
APP_PREFIXES = [
    prefix for prefixes in loadwsgi.APP.config_prefixes for prefix in prefixes
]

#: The keys of a section that name other sections, modules or distributions.
_NAMING = {"use", "filter-with", "pipeline", "next", "require"}


def as_text(values: Mapping[str, str]) -> dict[str, str]:
    """Return values as the text of a file, in which a percent sign has a meaning.

    ``%%`` and ``%(name)s`` keep the meaning that they have for ``pserve``.
    """
    return {
        key: re.sub(r"(?<!%)%(?![%(])", "%%", value) for key, value in values.items()
    }


class CeleryConfigLoader(loadwsgi.ConfigLoader):
    """PasteDeploy's reader of a file, in which ``[celery:NAME]`` may be short.

    ``[celery]`` is ``[celery:main]``, and a missing ``use`` is ``egg:pyramid_tasks``.

    Attributes:
        celery_section: The file and the section that is loaded, for messages.
    """

    celery_section: str | None = None

    def get_context(
        self, object_type: Any, name: str | None = None, global_conf: Any = None
    ) -> loadwsgi.LoaderContext:
        try:
            if name and name.startswith("config:"):
                return self._context_of_other(object_type, name, global_conf)
            context = super().get_context(object_type, name, global_conf)
        except Exception as error:
            self._add_place(error, object_type, name)
            raise
        create = context.create

        def create_here() -> Any:
            try:
                return create()
            except Exception as error:  # of a factory that does not take the keys
                self._add_place(error, object_type, name)
                raise

        context.create = create_here
        return context

    def _context_of_other(
        self, object_type: Any, name: str, global_conf: Any
    ) -> loadwsgi.LoaderContext:
        # A section of another file may be as short. PasteDeploy itself also finds that
        # file from an absolute path only.
        path, _, section = name.removeprefix("config:").partition("#")
        other = CeleryConfigLoader(str(Path(self.filename).parent / unquote(path)))
        # PasteDeploy would read the values as the text of that file.
        other.update_defaults(as_text(global_conf or {}), overwrite=False)
        return other.get_context(object_type, section or "main", global_conf)

    def find_key(self, word: str, *keys: str) -> tuple[str, str] | None:
        """Return a section and its key whose value has a word; of all keys, or some."""
        for section, key, value in self._values():
            if word in (value, *value.split()) and (key in keys or not keys):
                return section, key
        return None

    def uses(self, variable: str) -> bool:
        """Whether a value of the file has ``%(variable)s``."""
        return any(f"%({variable})s" in value for *_, value in self._values())

    def _values(self) -> Iterator[tuple[str, str, str]]:
        """Yield each section, each key in it, and the value as it is written."""
        for section in self.parser.sections():
            for key in self.parser.options(section):
                yield section, key, self._raw(section, key)

    def _add_place(self, error: Any, object_type: Any, name: str | None) -> None:
        """Give an error the file, the section and the key that it is about."""
        if hasattr(error, "place") or isinstance(error, configparser.Error):
            return
        try:
            section = self.find_config_section(object_type, name)
        except LookupError:  # the place is where this name stands
            if found := self.find_key(str(name)):
                self._set_place(error, *found)
            return
        missing = str(getattr(error, "name", None) or error)
        keys = [
            key
            for key in self.parser.options(section)
            if key in _NAMING or key.endswith("_factory")
        ]
        if isinstance(error, KeyError):  # of a variable
            missing = missing.strip("'")
            keys = [each for each in self.parser.options(section) if each[:4] == "get "]
        naming = [key for key in keys if missing in self._raw(section, key)]
        self._set_place(error, section, next(iter(naming or keys), None))

    def _set_place(self, error: Any, section: str, key: str | None) -> None:
        ending = f", {key} = {self._raw(section, key)}" if key else ""
        error.place = f"{self.filename}, [{section}]{ending}"

    def _raw(self, section: str, key: str) -> str:
        return str(self.parser.get(section, key, raw=True))

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
