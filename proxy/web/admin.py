"""The routes for operators: inspect, refresh, erase, flush, stats, open a gate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, g, request

from proxy.domain.profile import DEFAULT_PAGE, Igsid
from proxy.logs import audited, last_four
from proxy.lookup.invalidation import What
from proxy.lookup.lookup import Snapshot
from proxy.lookup.pages import Pages
from proxy.observability.totals import Totals
from proxy.web import operator_json, page_prefix, request_params, responses
from proxy.web.auth import Authenticator, Scope
from proxy.web.request_body import BodyReader


class FlushOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a flush; *older_than* is in seconds, no *page* means all Pages."""

    what: What
    older_than: Annotated[float, msgspec.Meta(ge=0)] | None = None
    page: str | None = None
    dry_run: bool = False


FLUSH_RULES = {
    "what": f"one of {', '.join(what.value for what in What)}",
    "older_than": "a number of seconds, 0 or more",
    "page": "the name of a Page",
    "dry_run": "true or false",
}
"""What each key of a `FlushOrder` must be."""


def blueprint(
    pages: Pages,
    authenticator: Authenticator,
    now: Callable[[], float],
    totals: Callable[[str], Totals],
    key_prefix: str,
) -> Blueprint:
    """Build the routes about one Page; *now* is epoch seconds.

    *totals* returns the counters of this instance, by the name of a Page. *key_prefix*
    is that of the keys in the store, for receipts.
    """
    bp = Blueprint("admin", __name__, url_prefix="/admin")
    page_prefix.prepare_requests(bp, pages, authenticator, Scope.ADMIN)

    def _render_snapshot(person: Igsid, snapshot: Snapshot) -> Response:
        return responses.render_ok(
            operator_json.render_snapshot(person, snapshot, now())
        )

    @bp.get("/profiles/<igsid>")
    def inspect(igsid: str) -> Response:
        """Return what is stored about a person, without a call to Meta."""
        person = request_params.read_igsid(igsid)
        with _audited("inspect", page=g.page, person=last_four(person)):
            snapshot = g.lookup.inspect(person)
        return _render_snapshot(person, snapshot)

    @bp.delete("/profiles/<igsid>")
    def erase(igsid: str) -> Response:
        """Erase every key of the person. The audit line has the receipt's fields."""
        person = request_params.read_igsid(igsid)
        with _audited("erase", page=g.page, person=last_four(person)) as line:
            receipt = operator_json.erase_receipt(
                person,
                g.lookup.erase(person),
                now(),
                page=g.page,
                key_prefix=key_prefix,
                by=g.client.name,
            )
            line |= operator_json.audit_fields(receipt)
        return responses.render_ok(receipt)

    @bp.post("/profiles/<igsid>/refresh")
    def refresh(igsid: str) -> Response:
        """Fetch from Meta now, and return what is stored then, or the failure."""
        person = request_params.read_igsid(igsid)
        with _audited("refresh", page=g.page, person=last_four(person)):
            g.lookup.refresh(person, client=g.client.name)
            snapshot = g.lookup.inspect(person)
        return _render_snapshot(person, snapshot)

    @bp.get("/stats")
    def stats() -> Response:
        """Return the gates, the used share of Meta's quota and the counters."""
        gate = operator_json.render_gate(g.lookup.gate_state())
        return responses.render_ok(
            gate | {"instance": operator_json.render_totals(totals(g.page))}
        )

    return bp


def blueprint_of_pages(
    pages: Pages, authenticator: Authenticator, bodies: BodyReader
) -> Blueprint:
    """Build the routes that take the name of one of *pages* as a parameter."""
    bp = Blueprint("admin_of_pages", __name__, url_prefix="/admin")

    @bp.before_request
    def authorize() -> None:
        page_prefix.authorize_request(authenticator, Scope.ADMIN, request.environ)

    @bp.post("/flush")
    def flush() -> Response:
        """Remove entries: ``{"what": "all", "older_than": 3600, "dry_run": true}``."""
        order = bodies.read(request, FlushOrder, FLUSH_RULES)
        limits: dict[str, Any] = {
            "older_than": order.older_than,
            "dry_run": order.dry_run,
        }
        page = order.page
        with _audited("flush", what=order.what.value, page=page, **limits) as line:
            flushed = pages.flush(order.what, page=page, **limits)
            counts = operator_json.render_flushed(flushed)
            line |= counts
        return responses.render_ok(counts)

    @bp.post("/gates/<cause>/open")
    def open_gate(cause: str) -> Response:
        """Have the next caller ask Meta again, for the Page in ``?page=``."""
        to_open = request_params.read_cause(cause)
        page = request.args.get("page", DEFAULT_PAGE)
        with _audited("open_gate", page=page, cause=to_open.value) as line:
            lookup = pages.find(page)
            opened = operator_json.render_opened(
                page, to_open, lookup.open_gate(to_open)
            )
            line |= {name: opened[name] for name in ("closed_for", "failures")}
        return responses.render_ok(opened)

    return bp


def _audited(
    action: str, **values: object
) -> AbstractContextManager[dict[str, object]]:
    """Write one audit line for an operator's action, with the name of the key."""
    return audited(action, by=g.client.name, request_id=g.request_id, **values)
