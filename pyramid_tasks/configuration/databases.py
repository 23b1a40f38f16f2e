"""The databases of ``db+...`` and ``sqla+...``, as far as they need no connection."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import SettingError
from .addresses import INSTEAD, find_address, without_secrets

if TYPE_CHECKING:
    from ..settings import Report

_OPTIONS = "database_engine_options"


def check_databases(
    settings: dict[str, Any], report: Report, *, is_worker: bool
) -> None:
    """Report addresses and options of which SQLAlchemy can make no engine.

    Args:
        settings: The settings of Celery, by the names of the settings.
        report: Called with each mistake, whose key is the name of a setting.
        is_worker: Whether results are stored. A process that never reads one needs no
            driver of their database.
    """
    for name, instead in INSTEAD.items():
        url, key, source = find_address(settings, name)
        kind, plus, address = str(url).partition("+")
        is_used = kind in {"sqla", "sqlalchemy"} or (is_worker and kind == "db")
        if not plus or not is_used or not find_spec("sqlalchemy"):
            continue
        if problem := _problem_of_address(address):
            settings[name] = instead
            report(SettingError(key, problem, source))
        elif problem := _problem_of_options(kind, address, settings.get(_OPTIONS)):
            del settings[_OPTIONS]
            report(SettingError(_OPTIONS, problem))


def _problem_of_address(address: str) -> str | None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError

    try:
        url = create_engine(address).url
    except ModuleNotFoundError as error:
        return f"needs the module {error.name}, which is not installed."
    except NoSuchModuleError:
        return (
            "is of no database that SQLAlchemy knows: write postgresql:// after the +, "
            "or such."
        )
    except Exception:  # noqa: BLE001 of any dialect
        return (
            "cannot be read by SQLAlchemy: write postgresql://host/name after the +, "
            "or such."
        )
    file = url.database or ""
    folder = Path(file).parent
    is_file = url.get_backend_name() == "sqlite" and not file.startswith("file:")
    if is_file and not folder.is_dir():
        return f"is in a folder that is not there: {folder}."
    return None


def _problem_of_options(kind: str, address: str, options: Any) -> str | None:
    if kind != "db" or not options:
        return None
    from sqlalchemy import create_engine

    try:
        create_engine(address, **options)
    except Exception as error:  # noqa: BLE001 of any dialect
        said, _, _ = str(error).partition(", using configuration")
        said = without_secrets(" ".join(said.split()), address)
        return f"cannot be used: {said.rstrip('.')}."
    return None
