"""The pages, and the same as JSON for programs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyramid.events import NewResponse, subscriber
from pyramid.exceptions import BadCSRFOrigin, BadCSRFToken
from pyramid.httpexceptions import HTTPBadRequest, HTTPFound, HTTPNotFound, HTTPSeeOther
from pyramid.renderers import render_to_response
from pyramid.view import exception_view_config, notfound_view_config, view_config
from sqlalchemy import select

from pyramid_tasks.exceptions import BrokerUnavailable

from .models import Import, Notice, bad_rows, grand_total, now, totals
from .tasks import import_expenses
from .uploads import UploadError, is_bare_csv, read_upload

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request
    from pyramid.response import Response

LATEST_SHOWN = 20
BAD_ROWS_SHOWN = 200
CATEGORIES_SHOWN = 200
# A worker that is free begins at once; after this the page says that none may be.
LATE = timedelta(seconds=5)
# The task says how far it is after every chunk; after this its worker may be gone.
STALLED = timedelta(seconds=30)

#: The pages load nothing from elsewhere, and no other site may frame them.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def includeme(config: Configurator) -> None:
    """Give the views their addresses, and the templates their filters."""
    config.get_settings()["jinja2.filters"] = {
        "money": "{:,.2f}".format,
        "moment": "{:%Y-%m-%d %H:%M} UTC".format,
        "number": "{:,}".format,
    }
    config.include("pyramid_jinja2")
    config.add_static_view("static", "sampleapp:static")
    config.add_route("home", "/")
    config.add_route("imports", "/imports")
    config.add_route("import", r"/imports/{id:\d{1,9}}")


@view_config(route_name="home", request_method="GET", renderer="templates/home.jinja2")
def home(request: Request) -> dict[str, Any]:
    """Show the form and the latest imports."""
    return _home(request)


@view_config(route_name="imports", request_method="GET")
def imports(request: Request) -> HTTPFound:
    """Lead to the list, for who loads the address of a refused form again."""
    return HTTPFound(request.route_url("home"))


@view_config(route_name="imports", request_method="POST", renderer="json")
def create_import(request: Request) -> dict[str, Any] | HTTPSeeOther:
    """Store a CSV file, and defer its import."""
    upload = read_upload(request)
    record = Import(name=upload.name, text=upload.text)
    request.dbsession.add(record)
    request.dbsession.flush()  # which gives it its id
    # Sent when the transaction commits, so that the worker finds the record.
    record.task_id = request.defer_task(import_expenses, record.id).id
    url = request.route_url("import", id=record.id)
    if not wants_json(request):
        return HTTPSeeOther(url)
    request.response.status_int = 201
    request.response.location = url
    return describe(request, record)


@view_config(
    route_name="import",
    request_method="GET",
    accept="text/html",
    renderer="templates/import.jinja2",
    http_cache=0,
)
def import_page(request: Request) -> dict[str, Any]:
    """Show how far an import is, and its result."""
    record = _get_import(request)
    page = _page(request)
    before = (page - 1) * CATEGORIES_SHOWN
    number, total = grand_total(request.dbsession, record.id)
    return {
        "record": record,
        "late": now() - record.created > LATE,
        "stalled": is_stalled(record),
        "page": page,
        "pages": -(-number // CATEGORIES_SHOWN),
        "totals": totals(request.dbsession, record.id, CATEGORIES_SHOWN, before),
        "grand_total": total,
        "notice": _notice(request, record),
        "bad_rows": bad_rows(request.dbsession, record.id, BAD_ROWS_SHOWN),
    }


@view_config(
    route_name="import",
    request_method="GET",
    accept="application/json",
    renderer="json",
    http_cache=0,
)
def import_json(request: Request) -> dict[str, Any]:
    """Tell how far an import is, and its result."""
    return describe(request, _get_import(request))


@exception_view_config(UploadError)
def refused_upload(error: UploadError, request: Request) -> Response:
    """Say what is wrong with an upload."""
    return _refuse(request, str(error))


@exception_view_config(BrokerUnavailable)
def no_broker(_error: BrokerUnavailable, request: Request) -> Response:
    """Say that nothing was stored, as nobody could be told to import it."""
    error = "Imports are not possible at the moment. Please try again later."
    request.tm.abort()  # the transaction that could not commit
    with request.tm:
        return _refuse(request, error, _typed_text(request), status=503)


@exception_view_config(BadCSRFToken)
@exception_view_config(BadCSRFOrigin)
def forged_form(_error: Exception, request: Request) -> Response:
    """Ask for the form again, without losing what was typed."""
    error = "The form is too old, or cookies are off. Please send it again."
    return _refuse(request, error, _typed_text(request))


@exception_view_config(UnicodeDecodeError)
def bad_address(_error: Exception, _request: Request) -> HTTPBadRequest:
    """Refuse an address that is not UTF-8, such as /%ff."""
    return HTTPBadRequest("The address is not UTF-8.")


@subscriber(NewResponse)
def add_security_headers(event: NewResponse) -> None:
    """Tell browsers what the pages do not need."""
    event.response.headers.update(SECURITY_HEADERS)


@notfound_view_config(append_slash=False)
def not_found(request: Request) -> Response:
    """Say that there is no such page, or import."""
    if wants_json(request):
        response = render_to_response("json", {"error": "Not found"}, request)
    else:
        response = render_to_response("templates/not_found.jinja2", {}, request)
    response.status_int = 404
    return response


def wants_json(request: Request) -> bool:
    """Tell whether a client prefers JSON to a page.

    Who sends a bare CSV is a program: it gets JSON unless it asks for a page.
    """
    offers = ["text/html", "application/json"]
    if is_bare_csv(request):
        offers.reverse()
    accepted = request.accept.acceptable_offers(offers)
    return bool(accepted) and accepted[0][0] == "application/json"


def is_stalled(record: Import) -> bool:
    """Tell whether a running import has not said for a while how far it is."""
    if record.status != "running" or record.progressed is None:
        return False
    return now() - record.progressed > STALLED


def describe(request: Request, record: Import) -> dict[str, Any]:
    """Return an import as JSON. Money is text, for JSON numbers are not exact."""
    page = _page(request)
    before = (page - 1) * CATEGORIES_SHOWN
    sums = totals(request.dbsession, record.id, CATEGORIES_SHOWN, before)
    number, _ = grand_total(request.dbsession, record.id)
    following = None
    if number > page * CATEGORIES_SHOWN:
        following = request.route_url(
            "import", id=record.id, _query={"page": str(page + 1)}
        )
    return {
        "id": record.id,
        "url": request.route_url("import", id=record.id),
        "task_id": record.task_id,
        "name": record.name,
        "created": record.created.isoformat(),
        "status": record.status,
        "stalled": is_stalled(record),
        "error": record.error,
        "rows_total": record.rows_total,
        "rows_done": record.rows_done,
        "rows_bad": record.rows_bad,
        "bad_rows": [
            {"line": row.line, "reason": row.reason, "text": row.text}
            for row in bad_rows(request.dbsession, record.id, BAD_ROWS_SHOWN)
        ],
        "totals": {category: str(amount) for category, amount in sums.items()},
        "more_totals": following,
        "notice": _notice(request, record),
    }


def _page(request: Request) -> int:
    """Return which part of the categories is asked for, from 1."""
    text = request.GET.get("page", "")
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,6}", text) else 1


def _home(request: Request, error: str = "", text: str = "") -> dict[str, Any]:
    latest = select(Import).order_by(Import.id.desc()).limit(LATEST_SHOWN)
    return {
        "imports": request.dbsession.scalars(latest).all(),
        "error": error,
        "text": text,
    }


def _typed_text(request: Request) -> str:
    text = "" if is_bare_csv(request) else request.POST.get("text", "")
    return text if isinstance(text, str) else ""


def _refuse(
    request: Request, error: str, text: str = "", *, status: int = 400
) -> Response:
    if wants_json(request):
        response = render_to_response("json", {"error": error}, request)
    else:
        values = _home(request, error, text)
        response = render_to_response("templates/home.jinja2", values, request)
    response.status_int = status
    return response


def _notice(request: Request, record: Import) -> str | None:
    notice: Notice | None = request.dbsession.get(Notice, record.id)
    return notice.text if notice else None


def _get_import(request: Request) -> Import:
    # The page and the JSON have the same address: caches must tell them apart.
    request.response.vary = ["Accept"]
    record: Import | None = request.dbsession.get(Import, int(request.matchdict["id"]))
    if record is None:
        raise HTTPNotFound
    return record
