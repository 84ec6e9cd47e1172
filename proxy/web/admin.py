"""The routes of operators: why this answer, fetch anew, erase, flush."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import msgspec
from flask import Blueprint, Response, g, request

from proxy.logs import audited, last_four
from proxy.lookup import ProfileLookup, What
from proxy.metrics import Totals
from proxy.web import wire
from proxy.web.keys import Doorkeeper, Scope


class FlushOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a flush; *older_than* is in seconds."""

    what: What
    older_than: Annotated[float, msgspec.Meta(ge=0)] | None = None
    dry_run: bool = False


def blueprint(
    lookup: ProfileLookup,
    doorkeeper: Doorkeeper,
    bodies: wire.BodyReader,
    clock: Callable[[], float],
    totals: Callable[[], Totals],
) -> Blueprint:
    """The routes, acting on *lookup*; *clock* is epoch seconds.

    *totals* is what this instance has counted.
    """
    bp = Blueprint("admin", __name__, url_prefix="/admin")

    @bp.before_request
    def admit() -> None:
        g.caller = doorkeeper.admit(request.environ, Scope.ADMIN)

    @bp.get("/profiles/<igsid>")
    def inspect(igsid: str) -> Response:
        """Why this answer: what is stored about a person. Asks nobody."""
        person = wire.read_igsid(igsid)
        with _audited("inspect", person=last_four(person)):
            seen = lookup.inspect(person)
        return wire.render_ok(wire.render_seen(person, seen, clock()))

    @bp.delete("/profiles/<igsid>")
    def erase(igsid: str) -> Response:
        """Erase every key of the person. The receipt's ``id`` is in the audit line."""
        person = wire.read_igsid(igsid)
        with _audited("erase", person=last_four(person)) as line:
            receipt = wire.erase_receipt(person, lookup.erase(person), clock())
            line["id"] = receipt["id"]
        return wire.render_ok(receipt)

    @bp.post("/profiles/<igsid>/refresh")
    def refresh(igsid: str) -> Response:
        """Ask Meta now, and tell what is stored then; a failure is a failure."""
        person = wire.read_igsid(igsid)
        with _audited("refresh", person=last_four(person)):
            lookup.refresh(person, payer=g.caller.name)
            seen = lookup.inspect(person)
        return wire.render_ok(wire.render_seen(person, seen, clock()))

    @bp.get("/stats")
    def stats() -> Response:
        """The gates, how much of Meta's quota is used, and what was counted here."""
        gate = wire.render_gate(lookup.gate_state())
        return wire.render_ok(gate | {"instance": wire.render_totals(totals())})

    @bp.post("/flush")
    def flush() -> Response:
        """Remove entries: ``{"what": "all", "older_than": 3600, "dry_run": true}``."""
        order = bodies.read(request, FlushOrder)
        asked = {"older_than": order.older_than, "dry_run": order.dry_run}
        with _audited("flush", what=order.what.value, **asked) as line:
            flushed = lookup.flush(
                order.what, older_than=order.older_than, dry_run=order.dry_run
            )
            counts = wire.render_flushed(flushed)
            line |= counts
        return wire.render_ok(counts)

    return bp


def _audited(
    action: str, **values: object
) -> AbstractContextManager[dict[str, object]]:
    """One line for each thing an operator does, with the name of the key."""
    return audited(action, by=g.caller.name, request_id=g.request_id, **values)
