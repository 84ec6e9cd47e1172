"""JSON for operators: stored entries, gates, counters and receipts."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from math import ceil
from typing import Any

from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import Cause, LookupFailure
from proxy.domain.freshness import bounded_by
from proxy.domain.profile import Igsid, Profile, Refusal
from proxy.lookup.lookup import (
    Census,
    Erased,
    Flushed,
    GateState,
    Opened,
    RefreshCounter,
    Snapshot,
)
from proxy.observability.metrics import OUTCOMES
from proxy.observability.totals import Totals
from proxy.web.problems import render_graph_error
from proxy.web.timestamps import format_timestamp

NOTHING_ERASED = (
    "Nothing was stored about this person on this Page, under this key prefix. "
)
"""The beginning of a receipt's ``detail`` if no key was there."""


def render_snapshot(igsid: Igsid, snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Return everything that is stored about a person."""
    return {
        "id": igsid,
        "entry": render_entry(snapshot.entry, now) if snapshot.entry else None,
        "lease_held": snapshot.lease is not None,
        "last_failure": render_note(snapshot.note.failure) if snapshot.note else None,
    }


def render_entry(entry: Entry, now: float) -> dict[str, Any]:
    """Return the outcome and the bounds of an entry, without names."""
    outcome = entry.outcome
    refusal = outcome if isinstance(outcome, Refusal) else None
    graph_error = refusal.said if refusal else entry.last_said
    freshness = entry.freshness(now)
    fresh_by, usable_by = bounded_by(entry)
    return {
        "outcome": refusal.reason.value if refusal else "profile",
        "freshness": freshness.name.lower(),
        "used": freshness is not Freshness.EXPIRED,
        "fetched_at": format_timestamp(entry.fetched_at),
        "fresh_until": format_timestamp(entry.fresh_until),
        "fresh_until_by": fresh_by,
        "usable_until": format_timestamp(entry.usable_until),
        "usable_until_by": usable_by,
        "refresh_after": format_timestamp(entry.refresh_after or None),
        "failed_refreshes": entry.failed_refreshes,
        "picture_expires_at": format_timestamp(
            outcome.picture_expires_at if isinstance(outcome, Profile) else None
        ),
        "graph": render_graph_error(graph_error) if graph_error else None,
    }


def render_note(note: LookupFailure) -> dict[str, Any]:
    """Return how the last flight failed."""
    graph = render_graph_error(note.said) if note.said else None
    return {"code": note.code, "graph": graph}


def render_gate(gate: GateState) -> dict[str, Any]:
    """Return the state of a Page's gate; ``closed_for`` is in seconds."""
    return {
        "gates": {
            state.cause.value: {
                "closed_for": ceil(state.closed_for),
                "failures": state.failures,
                "probing": state.is_probed,
            }
            for state in gate.causes
        },
        "usage_percent": gate.usage_percent,
        "unavailable_in_a_row": gate.doubted,
        "permission_missing_in_a_row": gate.refused,
        "lacks_permission": gate.lacks_permission,
        "witnesses": gate.witnesses,
        "refreshes": {
            "succeeded": gate.refreshes[RefreshCounter.REFRESHED],
            "failed": gate.refreshes[RefreshCounter.REFRESH_FAILED],
        },
    }


def render_opened(page: str, cause: Cause, opened: Opened) -> dict[str, Any]:
    """Return what an operator has opened; ``closed_for`` is in seconds."""
    return {
        "page": page,
        "cause": cause.value,
        "closed_for": ceil(opened.closed_for),
        "failures": opened.failures,
    }


def render_totals(totals: Totals) -> dict[str, Any]:
    """Return the counters of this instance."""
    ratio = totals.hit_ratio
    return {
        "outcomes": totals.by_outcome(),
        "sources": totals.by_source(),
        "hit_ratio": None if ratio is None else round(ratio, 4),
        "calls": totals.calls,
        "calls_saved": totals.calls_saved,
        "keys": {
            name: {
                "calls": key.calls,
                "forced": key.forced,
                "refusals": key.refusals,
            }
            for name, key in sorted(totals.keys.items())
        },
    }


def render_census(census: Census) -> dict[str, Any]:
    """Return the number of stored entries by kind."""
    kinds = {name: census.kinds.get(name, 0) for name in (*OUTCOMES, "unreadable")}
    return {"entries": kinds, "entries_complete": census.is_complete}


def render_flushed(flushed: Flushed) -> dict[str, int]:
    """Return how many entries a flush has matched and deleted."""
    return {"matched": flushed.matched, "deleted": flushed.deleted}


def erase_receipt(
    igsid: Igsid, erased: Erased, now: float, *, page: str, key_prefix: str, by: str
) -> dict[str, Any]:
    """Return the proof of an erasure: what was removed, where, when and by whom.

    *key_prefix* is that of the keys in the store, and *by* names who has erased.
    """
    was_there = asdict(erased)
    found = "" if any(was_there.values()) else NOTHING_ERASED
    return {
        "id": str(uuid.uuid4()),
        "igsid": igsid,
        "erased_at": format_timestamp(now),
        "page": page,
        "key_prefix": key_prefix,
        "by": by,
        "was_there": was_there,
        "detail": f"{found}The next GET of this person asks Meta again.",
    }


def audit_fields(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return what the audit line has of a *receipt*, beside the Page and by whom."""
    return {name: receipt[name] for name in ("id", "key_prefix", "was_there")}
