"""What a client sends: a file, a pasted text, or a bare CSV."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.viewderivers import INGRESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyramid.config import Configurator
    from pyramid.request import Request

MAX_NAME = 100
_DEFAULT_MAX_BYTES = 10 * 1024 * 1024


class UploadError(Exception):
    """What is wrong with an upload, in words for the person who sent it."""


@dataclass(frozen=True)
class Upload:
    """A CSV file: a name for people, and what is in it."""

    name: str
    text: str


def includeme(config: Configurator) -> None:
    """Protect the form, and limit what can be sent."""
    settings = config.get_settings()
    settings["sampleapp.max_bytes"] = int(
        settings.get("sampleapp.max_bytes", _DEFAULT_MAX_BYTES)
    )
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy(httponly=True))
    config.set_default_csrf_options(require_csrf=True, callback=can_be_forged)
    # Before the check of the CSRF token, which reads the whole form.
    config.add_view_deriver(check_body, under=INGRESS, over="csrf_view")


def is_bare_csv(request: Request) -> bool:
    """Tell whether the body of a request is a CSV file and nothing else."""
    return bool(request.content_type == "text/csv")


def can_be_forged(request: Request) -> bool:
    """Tell whether a page of another site could make a browser send this request.

    Browsers send text/csv to another site only if that site agrees; forms they just
    send.
    """
    return not is_bare_csv(request)


def check_body(view: Callable[..., Any], info: Any) -> Callable[..., Any]:
    """Refuse large bodies, and forms that are none: a view deriver."""
    limit = info.settings["sampleapp.max_bytes"]

    def checked(context: Any, request: Request) -> Any:
        if (request.content_length or 0) > limit:
            message = f"The upload is too large: at most {limit:,} bytes are accepted."
            raise UploadError(message)
        if not is_bare_csv(request):
            _parse_form(request)
        return view(context, request)

    # Exception views show this very error.
    return view if info.exception_only else checked


def _parse_form(request: Request) -> None:
    try:
        # Parsed when it is first used, and kept.
        request.POST  # noqa: B018
    # The warning is how WebOb refuses a charset.
    except (ValueError, LookupError, DeprecationWarning) as error:
        message = "The form cannot be read: send it as UTF-8."
        raise UploadError(message) from error


def read_upload(request: Request) -> Upload:
    """Take the CSV out of a request.

    Raises:
        UploadError: It is empty, or not a text in UTF-8.
    """
    name, data = _find(request)
    text = data if isinstance(data, str) else _decode(data)
    # PostgreSQL cannot store it, and no CSV file has it.
    if "\0" in text:
        message = "The upload is not a text file: it contains zero bytes."
        raise UploadError(message)
    if not text.strip():
        message = "The upload is empty: choose a file or paste some rows."
        raise UploadError(message)
    return Upload(name, text)


def _find(request: Request) -> tuple[str, bytes | str]:
    if is_bare_csv(request):
        return "CSV sent over HTTP", request.body
    file = request.POST.get("file")
    # A form without a chosen file sends a file without a name.
    if getattr(file, "filename", None):
        return _clean_name(file.filename), file.file.read()
    text = request.POST.get("text", "")
    if hasattr(text, "file"):
        return "Pasted text", text.file.read()
    # What WebOb could not decode is lost: it has put this character in its place.
    if "\N{REPLACEMENT CHARACTER}" in text:
        message = "The form is not in UTF-8."
        raise UploadError(message)
    return "Pasted text", text


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = (
            f"The upload is not a text in UTF-8 (byte {error.start + 1:,}). "
            "Save the table as “CSV UTF-8” and send it again."
        )
        raise UploadError(message) from error


def _clean_name(filename: str) -> str:
    # Some browsers send the whole path.
    name = re.split(r"[/\\]", filename)[-1]
    printable = "".join(char for char in name if char.isprintable()).strip()
    return printable[:MAX_NAME] or "Uploaded file"
