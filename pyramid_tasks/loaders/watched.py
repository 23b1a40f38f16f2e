"""The files that ``--reload`` watches, beside the modules of Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hupper
import plaster
from pyramid.path import AssetResolver
from pyramid.settings import aslist

from ..exceptions import LoadError
from .errors import plain_errors

# In use = config:other.ini#name, and in the other places for such a URI.
_INCLUDED = re.compile(r"\bconfig:([^\s#?]+)")


def watch_config(config_uri: str, variables: dict[str, str]) -> None:
    """Watch a file, the files that it includes, and ``watch_files`` of ``[pserve]``.

    Raises:
        LoadError: The section ``[pserve]`` cannot be read.
    """
    path = Path(plaster.parse_uri(config_uri).path)
    reloader = hupper.get_reloader()
    # First of all: the rest fails if the file is broken, or is away for the moment.
    reloader.watch_files([str(file) for file in _with_included(path.absolute())])
    if path.is_file():
        reloader.watch_files(_find_watched(config_uri, variables, path))


def find_ignored(config_uri: str, variables: dict[str, str]) -> list[str]:
    """Return ``ignore_files`` of ``[pserve]``."""
    settings = _pserve_settings(config_uri, variables)
    return list(aslist(settings.get("ignore_files", ""), flatten=False))


def _with_included(path: Path, found: frozenset[Path] = frozenset()) -> set[Path]:
    files = {path, *found}
    if path.is_file():
        text = path.read_text(errors="replace").replace("%(here)s", str(path.parent))
        for name in _INCLUDED.findall(text):
            other = path.parent / name
            if other not in files:
                files |= _with_included(other, frozenset(files))
    return files


def _find_watched(config_uri: str, variables: dict[str, str], path: Path) -> list[str]:
    with plain_errors(str(path)):
        settings = _pserve_settings(config_uri, variables)
    files = []
    for name in aslist(settings.get("watch_files", ""), flatten=False):
        try:
            # As pserve reads an asset or a path. Either may have wildcards.
            file = AssetResolver(None).resolve(name).abspath() if ":" in name else name
        except (ImportError, ValueError) as error:
            message = f"{path}, [pserve], watch_files: {name}: {error}."
            raise LoadError(message, config_uri) from error
        files.append(str(path.absolute().parent / file))
    return files


def _pserve_settings(config_uri: str, variables: dict[str, str]) -> dict[str, Any]:
    try:
        loader = plaster.get_loader(config_uri)
    except plaster.PlasterError:  # the loader speaks the protocol celery alone
        return {}
    if "pserve" not in loader.get_sections():
        return {}
    return dict(loader.get_settings("pserve", variables))
