"""What a running instance does just now, as a page of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.profile import DEFAULT_PAGE
from proxy.lookup.pages import UnknownPage
from proxy.observability.series import PREFIX
from proxy.observability.totals import Totals

CLEAR = "\x1b[H\x1b[J"
"""What a terminal takes for: begin at the top, with nothing below."""


class Reading(NamedTuple):
    """One look at an instance: what it has counted, and how things are.

    *closed_for* is by cause, of a Page by its name, and *usage* by Page.
    """

    totals: Totals
    gauges: Mapping[str, float]
    closed_for: Mapping[str, float]
    usage: Mapping[str, float]


def read(exposition: str, page: str | None = None) -> Reading:
    """Read what ``GET /metrics`` of an instance says, of one Page or of all.

    Raises:
        UnknownPage: the instance has no such Page.
    """
    families = list(text_string_to_metric_families(exposition))
    gauges: dict[str, float] = {}
    closed_for: dict[str, float] = {}
    usage: dict[str, float] = {}
    pages: set[str] = set()
    for sample in (each for family in families for each in family.samples):
        name = sample.name.removeprefix(PREFIX)
        whose = sample.labels.get("page")
        if whose is None:
            if not sample.labels:
                gauges[name] = sample.value
            continue
        pages.add(whose)
        if page not in (None, whose):
            continue
        if name == "gate_closed_for_seconds":
            of_page = "" if whose == (page or DEFAULT_PAGE) else f"{whose}: "
            closed_for[of_page + sample.labels["cause"]] = sample.value
        elif name == "graph_usage_ratio":
            usage[whose] = sample.value
    if page is not None and page not in pages:
        raise UnknownPage(page)
    return Reading(Totals.of(families, page), gauges, closed_for, usage)


def draw(now: Reading, before: Reading | None, seconds: float) -> str:
    """*now* as lines of text, and by how much it grows a second since *before*.

    Without one, only what has been counted since the instance was started.
    """
    counts = _counts(now.totals)
    earlier = _counts(before.totals) if before else None

    def row(name: str) -> str:
        line = f"{name:<20}{counts[name]:>14,}"
        if earlier is None:
            return line
        grown = max(0, counts[name] - earlier[name])  # It may have been restarted.
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
    """Everything that is counted, by the name of its line."""
    return {
        "lookups": totals.lookups,
        "calls to Meta": totals.calls,
        "calls saved": totals.calls_saved,
        **totals.by_source(),
        **totals.by_outcome(),
    }


def _state(now: Reading) -> list[str]:
    """How the gate, the quota, the store and the copies are."""
    is_up = now.gauges.get("store_up")
    closed = [
        f"{cause} for {seconds:.0f} s"
        for cause, seconds in now.closed_for.items()
        if seconds
    ]
    usage = max(now.usage.values(), default=None)
    copies = f"{now.gauges.get('near_entries', 0):,.0f}"
    if not now.gauges.get("near_trusted"):
        in_place = copies != "0" and not is_up
        copies += ", in place of the store" if in_place else ", not in use"
    gate = "closed: " + ", ".join(closed) if closed else "open"
    return [
        f"{'gate':<20}{gate if is_up else 'not known'}",
        f"{'quota used':<20}{'not known' if usage is None else f'{usage:.0%}'}",
        f"{'store':<20}{'up' if is_up else 'away'}",
        f"{'copies':<20}{copies}",
    ]
