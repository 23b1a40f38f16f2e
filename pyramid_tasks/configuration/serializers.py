"""How messages and results are written, and the content that is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu import compression
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.serialization import registry as serializers

from ..exceptions import SettingError, near_names
from .addresses import find_address
from .kinds import near

if TYPE_CHECKING:
    from ..settings import Report

#: Celery's own, in every setting about serializers.
_DEFAULT = "json"


def check_serializer(value: Any) -> None:
    """Check the value of a setting or an option that is a serializer.

    Raises:
        ValueError: It is not registered, or its package is not installed.
    """
    if not isinstance(value, str) or value not in serializers.name_to_type:
        raise ValueError(f"= {value} is not one of {near(value, _names())}")
    try:
        with suppress(EncodeError):  # of a serializer that does not take every value
            serializers.dumps("", serializer=value)
    except SerializerNotInstalled:
        package = {"yaml": "pyyaml"}.get(value, value)
        problem = f"= {value} needs a package: pip install {package}."
        raise ValueError(problem) from None


def check_accepted(value: Any) -> None:
    """Check the value of a setting that lists what is accepted.

    Raises:
        ValueError: A serializer is not registered, or a type of content is misspelt.
    """
    for each in [value] if isinstance(value, str) else value:
        is_type = isinstance(each, str) and "/" in each
        known = [*serializers.type_to_name] if is_type else _names()
        # A type that is near to no other one needs no serializer here.
        is_other = is_type and not near_names(each, known, cutoff=0.9)
        if each not in known and not is_other:
            raise ValueError(
                f"has {each!r}, which is not one of {near(each, known)} Write "
                "several with a space between them."
            )


def check_compression(value: Any) -> None:
    """Check the value of a setting or an option that is a compression.

    Raises:
        ValueError: It is not known, or its package is not installed.
    """

    def is_known(name: Any) -> bool:
        try:
            return bool(compression.get_encoder(name))
        except (KeyError, TypeError):
            return False

    if not is_known(value):
        known = [*filter(is_known, ("gzip", "bzip2", "lzma", "brotli", "zstd"))]
        raise ValueError(f"= {value} is not one of {near(value, known)}")


def check_contents(
    settings: Mapping[str, Any], report: Report, key_of: Callable[[str], str]
) -> None:
    """Report a serializer of a worker's tasks or results that nobody accepts.

    Args:
        settings: The settings of Celery, by the names of the settings.
        report: Called with each mistake, whose key is the name of a setting.
        key_of: Returns the key that the configuration has for a setting.
    """
    from ..worker.ignored_settings import (
        is_refused,  # a web process asks for no such check
    )

    for name, accept in _pairs(settings):
        serializer = settings.get(name) or _DEFAULT
        accepted = settings.get(accept) or [_DEFAULT]
        if is_refused(serializer, accepted):
            remedy = f"{key_of(accept)} = {' '.join([*accepted, serializer])}."
            if settings.get(name):
                problem = f"= {serializer} is what {key_of(accept)} refuses"
                remedy = f"write {' or '.join(accepted)}, or {remedy}"
                report(SettingError(name, f"{problem}: {remedy}"))
            else:
                problem = f"refuses {serializer}, the default of {key_of(name)}"
                report(SettingError(accept, f"{problem}: write {remedy}"))


def _pairs(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings that are serializers, each with the one that accepts."""
    if not settings.get("task_always_eager"):  # otherwise nothing is sent
        yield "task_serializer", "accept_content"
        results, *_ = find_address(settings, "result_backend")
        if results and not settings.get("task_ignore_result"):
            own = "result_accept_content"
            is_own = settings.get(own) is not None
            yield "result_serializer", own if is_own else "accept_content"


def _names() -> list[str]:
    return [name for name in serializers.name_to_type if "/" not in name]
