"""The metric of the reasons why an instance is degraded."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from proxy.observability.series import Declaration

DEGRADED = Declaration(
    "degraded",
    "1 while an instance is degraded for this reason of readyz.",
    ("reason",),
)


class Degraded:
    """A gauge for each reason: 1 while any worker sees it, 0 otherwise."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauge = DEGRADED.gauge(registry, "livemax")
        self._series: set[str] = set()

    def set(self, reasons: Iterable[str], possible: Iterable[str] = ()) -> None:
        """Set the series of *reasons* to 1, and all others, *possible* ones too, to 0.

        Reasons come from tables of ours, and from the operator's file of Pages.
        """
        current = set(reasons)
        self._series |= current.union(possible)
        for reason in self._series:
            self._gauge.labels(reason).set(reason in current)
