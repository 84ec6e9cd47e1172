"""What operators are told: why this answer, how things stand, what was removed."""

from __future__ import annotations

import uuid
from math import ceil
from typing import Any

from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import LookupFailure
from proxy.domain.freshness import bounded_by
from proxy.domain.profile import Igsid, Profile, Refusal
from proxy.lookup.lookup import (
    Census,
    Erased,
    Flushed,
    GateState,
    RefreshCounter,
    Snapshot,
)
from proxy.observability.metrics import OUTCOMES
from proxy.observability.totals import Totals
from proxy.web.problems import render_said
from proxy.web.timestamps import format_timestamp


def render_seen(igsid: Igsid, seen: Snapshot, now: float) -> dict[str, Any]:
    """What is stored about a person, as an operator sees it."""
    return {
        "id": igsid,
        "entry": render_entry(seen.entry, now) if seen.entry else None,
        "lease_held": seen.lease is not None,
        "last_failure": render_note(seen.note) if seen.note else None,
    }


def render_entry(entry: Entry, now: float) -> dict[str, Any]:
    """An entry as an operator sees it: its outcome and its bounds, no names."""
    outcome = entry.outcome
    refusal = outcome if isinstance(outcome, Refusal) else None
    said = refusal.said if refusal else entry.last_said
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
        "graph": render_said(said) if said else None,
    }


def render_note(note: LookupFailure) -> dict[str, Any]:
    """How the last flight failed, as an operator sees it."""
    graph = render_said(note.said) if note.said else None
    return {"code": note.code, "graph": graph}


def render_gate(gate: GateState) -> dict[str, Any]:
    """A Page's gate as an operator sees it; ``closed_for`` is in seconds."""
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
        "refreshes": {
            "succeeded": gate.refreshes[RefreshCounter.REFRESHED],
            "failed": gate.refreshes[RefreshCounter.REFRESH_FAILED],
        },
    }


def render_totals(totals: Totals) -> dict[str, Any]:
    """What this instance has counted, as an operator sees it."""
    ratio = totals.hit_ratio
    return {
        "outcomes": totals.by_outcome(),
        "sources": totals.by_source(),
        "hit_ratio": None if ratio is None else round(ratio, 4),
        "calls": totals.calls,
        "calls_saved": totals.calls_saved,
    }


def render_census(census: Census) -> dict[str, Any]:
    """How many entries there are, as an operator sees it."""
    kinds = {name: census.kinds.get(name, 0) for name in (*OUTCOMES, "unreadable")}
    return {"entries": kinds, "entries_complete": census.is_complete}


def render_flushed(flushed: Flushed) -> dict[str, int]:
    """What a flush has found and removed."""
    return {"matched": flushed.matched, "deleted": flushed.deleted}


def erase_receipt(igsid: Igsid, erased: Erased, now: float) -> dict[str, Any]:
    """What an operator can show of an erasure. The audit line has the same ``id``."""
    return {
        "id": str(uuid.uuid4()),
        "igsid": igsid,
        "erased_at": format_timestamp(now),
        "was_there": {
            "entry": erased.entry,
            "lease": erased.lease,
            "note": erased.note,
        },
        "detail": "The next GET of this person asks Meta again.",
    }
