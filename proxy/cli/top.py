"""The screen of ``top``: the counts and the state of a running instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.profile import DEFAULT_PAGE
from proxy.lookup.pages import UnknownPage
from proxy.observability.degraded import DEGRADED
from proxy.observability.series import PREFIX
from proxy.observability.totals import Totals

CLEAR = "\x1b[H\x1b[J"
"""Moves a terminal's cursor to the top left, and erases the screen."""


class Reading(NamedTuple):
    """One scrape of an instance: its counts and its state.

    *closed_for* is in seconds by cause, with the name of another Page before it,
    *usage* is by Page, and *degraded* has the reasons of ``readyz``.
    """

    totals: Totals
    gauges: Mapping[str, float]
    closed_for: Mapping[str, float]
    usage: Mapping[str, float]
    degraded: Sequence[str]


def read(exposition: str, page: str | None = None) -> Reading:
    """Read the *exposition* of ``GET /metrics``, for one Page or for all.

    Raises:
        UnknownPage: the instance has no such Page.
    """
    families = list(text_string_to_metric_families(exposition))
    gauges: dict[str, float] = {}
    closed_for: dict[str, float] = {}
    usage: dict[str, float] = {}
    pages: set[str] = set()
    degraded: list[str] = []
    for sample in (each for family in families for each in family.samples):
        name = sample.name.removeprefix(PREFIX)
        owner = sample.labels.get("page")
        if owner is None:
            if not sample.labels:
                gauges[name] = sample.value
            elif name == DEGRADED.name and sample.value:
                degraded.append(sample.labels["reason"])
            continue
        pages.add(owner)
        if page not in (None, owner):
            continue
        if name == "gate_closed_for_seconds":
            prefix = "" if owner == (page or DEFAULT_PAGE) else f"{owner}: "
            closed_for[prefix + sample.labels["cause"]] = sample.value
        elif name == "graph_usage_ratio":
            usage[owner] = sample.value
    if page is not None and page not in pages:
        raise UnknownPage(page)
    return Reading(Totals.of(families, page), gauges, closed_for, usage, degraded)


def draw(now: Reading, before: Reading | None, seconds: float) -> str:
    """Draw *now* as lines of text, with the growth per second since *before*.

    Without *before*, only the counts since the instance was started.
    """
    counts = _counts(now.totals)
    earlier = _counts(before.totals) if before else None

    def row(name: str) -> str:
        line = f"{name:<20}{counts[name]:>14,}"
        if earlier is None:
            return line
        # At least 0: the instance may have been restarted in between.
        grown = max(0, counts[name] - earlier[name])
        return f"{line}{grown / seconds:>14,.1f}/s"

    ratio = now.totals.hit_ratio
    lines = [
        *map(row, ("lookups", "calls to Meta", "calls saved")),
        f"{'hit ratio':<20}{'-' if ratio is None else f'{ratio:.1%}':>14}",
        "",
        *map(row, now.totals.by_source()),
        "",
        *(row(name) for name, count in now.totals.by_outcome().items() if count),
        "",
        *_state(now),
    ]
    return "\n".join(lines) + "\n"


def _counts(totals: Totals) -> dict[str, int]:
    """All counts, by the name of their line."""
    return {
        "lookups": totals.lookups,
        "calls to Meta": totals.calls,
        "calls saved": totals.calls_saved,
        **totals.by_source(),
        **totals.by_outcome(),
    }


def _state(now: Reading) -> list[str]:
    """The lines of the gate, the quota, the store and the local copies."""
    is_up = now.gauges.get("store_up")
    closed = [
        f"{cause} for {seconds:.0f} s"
        for cause, seconds in now.closed_for.items()
        if seconds
    ]
    usage = max(now.usage.values(), default=None)
    copies = f"{now.gauges.get('near_entries', 0):,.0f}"
    if not now.gauges.get("near_trusted"):
        is_fallback = copies != "0" and not is_up
        copies += ", in place of the store" if is_fallback else ", not in use"
    gate = "closed: " + ", ".join(closed) if closed else "open"
    return [
        f"{'gate':<20}{gate if is_up else 'not known'}",
        f"{'quota used':<20}{'not known' if usage is None else f'{usage:.0%}'}",
        f"{'store':<20}{'up' if is_up else 'away'}",
        f"{'copies':<20}{copies}",
        f"{'degraded':<20}{', '.join(now.degraded) or 'no'}",
    ]
