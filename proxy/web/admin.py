"""The routes of operators: why this answer, erase, flush."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import msgspec
from flask import Blueprint, Response, g, request

from proxy.logs import last_four
from proxy.lookup import ProfileLookup, What
from proxy.web import wire
from proxy.web.keys import Doorkeeper, Scope

log = logging.getLogger(__name__)


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
) -> Blueprint:
    """The routes, acting on *lookup*; *clock* is epoch seconds."""
    bp = Blueprint("admin", __name__, url_prefix="/admin")

    @bp.before_request
    def admit() -> None:
        g.caller = doorkeeper.admit(request, Scope.ADMIN)

    @bp.get("/profiles/<igsid>")
    def inspect(igsid: str) -> Response:
        """Why this answer: what is stored about a person. Asks nobody."""
        person = wire.read_igsid(igsid)
        seen = lookup.inspect(person)
        _audit("inspect", person=last_four(person))
        return wire.json_response(
            200,
            {
                "id": person,
                "entry": wire.render_entry(seen.entry, clock()) if seen.entry else None,
                "lease_held": seen.lease is not None,
                "last_failure": wire.render_note(seen.note) if seen.note else None,
            },
        )

    @bp.delete("/profiles/<igsid>")
    def erase(igsid: str) -> Response:
        """Erase every key of the person. The receipt's ``id`` is in the audit line."""
        person = wire.read_igsid(igsid)
        erased = lookup.erase(person)
        receipt = wire.erase_receipt(person, erased, clock())
        _audit("erase", id=receipt["id"], person=last_four(person))
        return wire.json_response(200, receipt)

    @bp.get("/stats")
    def stats() -> Response:
        """The gates, how much of Meta's quota is used, and what is doubted."""
        return wire.json_response(200, wire.render_gate(lookup.gate_state()))

    @bp.post("/flush")
    def flush() -> Response:
        """Remove entries: ``{"what": "all", "older_than": 3600, "dry_run": true}``."""
        order = bodies.read(request, FlushOrder)
        flushed = lookup.flush(
            order.what, older_than=order.older_than, dry_run=order.dry_run
        )
        counts = {"matched": flushed.matched, "deleted": flushed.deleted}
        _audit(
            "flush",
            what=order.what.value,
            older_than=order.older_than,
            dry_run=order.dry_run,
            **counts,
        )
        return wire.json_response(200, counts)

    return bp


def _audit(action: str, **values: object) -> None:
    """One line for each thing an operator does, with the name of the key."""
    who = {"action": action, "by": g.caller.name, "request_id": g.request_id}
    log.info("operator", extra=who | values)
