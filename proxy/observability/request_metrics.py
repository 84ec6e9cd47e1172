"""The metrics of requests: how many by route and status, and how long they took."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram

from proxy.observability.series import PREFIX, Declaration, Fold

REQUESTS = Declaration(
    "requests_total",
    "Requests that were answered, by route and status.",
    ("route", "status", "page"),
)
REQUEST_SECONDS = Declaration(
    "request_seconds", "How long lookups took that were not answered at once."
)

SECONDS_OF_A_REQUEST = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 12.0, 30.0, 62.0, 122.0),
)
"""Buckets, up to the longest wait: 12 s by default, 122 s by the longest setting."""

OTHER_PAGE = ""
"""The Page of a request that is no lookup, or about a Page that is not served."""


class RequestLabels(NamedTuple):
    """What requests can be: the *statuses* of each route, and which are *lookups*.

    *status_of* an outcome is that of a hit at *hit_route*.
    """

    statuses: Mapping[str, Collection[int]] = {}
    lookups: Collection[str] = ()
    hit_route: str = ""
    status_of: Mapping[str, int] = {}


class RequestMetrics:
    """Counts the requests of one process. All its series exist from the start."""

    def __init__(self, registry: CollectorRegistry, labels: RequestLabels) -> None:
        self.labels = labels
        self._counter = REQUESTS.counter(registry)
        self._seconds = Histogram(
            PREFIX + REQUEST_SECONDS.name,
            REQUEST_SECONDS.help,
            buckets=SECONDS_OF_A_REQUEST,
            registry=registry,
        )
        for route, statuses in labels.statuses.items():
            if route not in labels.lookups:
                for status in statuses:
                    self._counter.labels(route, status, OTHER_PAGE)

    def count(self, route: str, status: int, page: str, seconds: float) -> None:
        """Count one request; *page* matters for lookups alone, and is one we serve."""
        is_lookup = route in self.labels.lookups
        self._counter.labels(route, status, page if is_lookup else OTHER_PAGE).inc()
        if is_lookup:
            self._seconds.observe(seconds)

    def new_counts(self) -> dict[tuple[str, int], int]:
        """Plain counts of a Page's lookups by route and status, for the fast path."""
        return {
            key: 0
            for route in self.labels.lookups
            for key in product([route], self.labels.statuses.get(route, ()))
        }

    def folds_of(
        self,
        hits: dict[tuple[str, str], int],
        others: dict[tuple[str, int], int],
        page: str,
    ) -> tuple[Fold[tuple[str, str]] | Fold[tuple[str, int]], ...]:
        """Make the folds of what a Page's fast path counts.

        Plain *hits* are counted by source and outcome, *others* as by `new_counts`.
        """
        route, status_of = self.labels.hit_route, self.labels.status_of
        if not status_of:
            return ()
        return (
            Fold(
                hits,
                self._counter,
                labels=lambda key: (route, status_of[key[1]], page),
            ),
            Fold(others, self._counter, page),
        )
