"""Every metric, declared once, and the plain counts of one process.

Frequent events are counted in a plain integer, in a dict whose keys all exist from the
start: no series that is not in this file, and 0 rather than nothing before the first
one. The growth is folded into the library's counters once a second, in each process,
and at each scrape. Labels come from our own enums and tables, never from a request or
from Meta's words.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from proxy.domain.answer import Answer, FetchResult, Source
from proxy.domain.failures import FAILURES, LookupFailure
from proxy.domain.profile import (
    DEFAULT_PAGE,
    Outcome,
    Profile,
    Reason,
    Refusal,
)
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult
from proxy.observability.call_metrics import ODD_FIELDS, CallMetrics
from proxy.observability.degraded import Degraded
from proxy.observability.instance import InstanceCollector
from proxy.observability.key_metrics import KeyMetrics
from proxy.observability.multiprocess import (
    WorkersCollector,
    process_ids,
    shared_folder,
)
from proxy.observability.request_metrics import RequestLabels, RequestMetrics
from proxy.observability.series import Declaration, Fold, WithoutCreated, zeros
from proxy.observability.store_reading import StoreCollector, StoreReading

CONTENT_TYPE = CONTENT_TYPE_LATEST

FOLD_EVERY = 1.0
"""Seconds by which the counts of other workers may be late in a scrape."""

NO_REQUESTS = RequestLabels()

AnyFold = Fold[str] | Fold[tuple[str, str]] | Fold[tuple[str, int]]

PROFILE = "profile"
OUTCOMES = (PROFILE, *(reason.value for reason in Reason))

FAILURE_CODES = tuple(failure.code for failure in FAILURES)
GRAPH_FAILURE_CODES = tuple(failure.code for failure in FAILURES if failure.cause)
"""Every failure, and every one that a call to Meta can end in."""

_WRITTEN = UpdateKind.MESSAGE, UpdateKind.POSTBACK
"""The updates that report that a person has written; the others are ignored."""

ANSWERS = Declaration(
    "answers_total",
    "Lookups, by where the answer came from and what it was.",
    ("source", "outcome", "page"),
)
CALLS = Declaration("graph_calls_total", "Calls to Meta.", ("result", "page"))
REFRESHES = Declaration(
    "refreshes_total", "Stale profiles that were to be refreshed.", ("result", "page")
)
STORE_ERRORS = Declaration(
    "store_errors_total", "Times the store did not do as it was told.", ("kind",)
)
WEBHOOKS = Declaration(
    "webhooks_total", "Webhooks, by what became of them.", ("result",)
)
UPDATES = Declaration(
    "webhook_updates_total", "Updates in accepted webhooks.", ("kind", "result")
)
NEAR_LOOKS = Declaration("near_looks_total", "Looks into the near cache.", ("result",))
NEAR_DROPS = Declaration(
    "near_drops_total", "Entries that the near cache let go.", ("cause",)
)
NEAR_ENTRIES = Declaration("near_entries", "Entries in the near caches, all workers'.")
NEAR_TRUSTED = Declaration(
    "near_trusted", "1 while every worker may use its near cache."
)


class GilDisabled(RuntimeError):
    """This Python runs without the GIL, which the counts rely on."""

    def __init__(self) -> None:
        super().__init__(
            "This Python runs without its global interpreter lock (GIL), and counts"
            " would be lost. Use a standard build of Python, or set PYTHON_GIL=1."
        )


class NearCounts(Protocol):
    """The counts that a near cache keeps itself, because it is read most often."""

    hits: int
    misses: int
    bypassed: int
    invalidated: int
    evicted: int

    @property
    def size(self) -> int: ...

    @property
    def is_trusted(self) -> bool: ...


class PageMetrics:
    """The counts of one Page in this process; `Metrics` says why without a lock."""

    def __init__(
        self,
        call_metrics: CallMetrics,
        keys: KeyMetrics,
        requests: dict[tuple[str, int], int],
    ) -> None:
        self.answers = zeros(
            *product(("near", "hit", "fetched", "collapsed"), OUTCOMES),
            ("stale", PROFILE),
            *(("none", code) for code in FAILURE_CODES),
        )
        """By source and outcome; the source ``none`` is a failure."""
        self.calls = zeros(*OUTCOMES, *GRAPH_FAILURE_CODES)
        self.refreshes = zeros("succeeded", "failed")
        self.plain_hits = zeros(*product(("near", "hit"), OUTCOMES))
        """Answers, too, but of the fast path to plain requests for one profile: each
        counts as a request of that route as well."""
        self.requests = requests
        """The other requests that the fast path answers, by route and status."""
        self._call_metrics = call_metrics
        self._keys = keys

    def count_answer(self, answer: Answer, now: float) -> str:
        """Count one answer, given at *now*, in epoch seconds; return its source."""
        source, outcome = answer.source.name.lower(), name_of(answer.entry.outcome)
        if answer.source in (Source.HIT, Source.STALE):
            is_stale = now >= answer.entry.fresh_until and outcome == PROFILE
            source = "stale" if is_stale else "hit"
        self.answers[source, outcome] += 1
        return source

    def count_failure(self, failure: LookupFailure) -> None:
        """Count one lookup that failed."""
        self.answers["none", failure.code] += 1

    def count_call(
        self,
        result: FetchResult,
        seconds: float,
        *,
        client: str | None = None,
        is_forced: bool = False,
    ) -> None:
        """Count one call to Meta, which took so many seconds.

        *client* is the name of the API key that led it, None for background work.
        """
        self.calls[name_of(result.outcome)] += 1
        if client is not None:
            outcome = result.outcome
            refusal = outcome.reason if isinstance(outcome, Refusal) else None
            self._keys.count(client, refusal, is_forced=is_forced)
        self._call_metrics.observe(seconds, result.graph_version)
        for field in result.odd_fields:
            self._call_metrics.odd_fields[field] += 1


class Metrics:
    """The counts of one process: its own, and those of each Page.

    ``page.answers["near", "profile"] += 1`` is right without a lock, from any thread:
    CPython passes the GIL on between two bytecodes only where a function is entered,
    a call returns or a loop jumps back, and none of these lies between the read and
    the write. That holds for keys of plain ``str``, whose hash is no Python code, and
    for ``+=`` on the subscript; not for a count behind a method call.

    Raises:
        GilDisabled: there is no GIL in this Python.
    """

    def __init__(self, request_labels: RequestLabels = NO_REQUESTS) -> None:
        """*request_labels* are those of the routes, which only HTTP knows."""
        require_gil()
        self.store_errors = zeros("reads", "writes")
        self.webhooks = zeros("accepted", "refused", "unreadable", "failed")
        self.updates = zeros(
            *(
                (kind.value, result.value)
                for kind, result in product(UpdateKind, UpdateResult)
                if result is UpdateResult.IGNORED or kind in _WRITTEN
            )
        )
        """By kind and result."""
        self.near: NearCounts | None = None
        self._near_looks = zeros("hit", "miss", "bypassed")
        self._near_drops = zeros("invalidated", "evicted")
        self._lock = threading.Lock()
        self._pages: dict[str, PageMetrics] = {}
        folder = shared_folder()
        self._is_folding = folder is None  # A process by itself folds when asked.
        registry = CollectorRegistry()
        self._families: Collector = (
            WorkersCollector(folder) if folder else WithoutCreated(registry)
        )
        self._page_counters = tuple(
            each.counter(registry) for each in (ANSWERS, CALLS, REFRESHES)
        )
        self._folds: list[AnyFold] = [
            Fold(self.store_errors, STORE_ERRORS.counter(registry)),
            Fold(self.webhooks, WEBHOOKS.counter(registry)),
            Fold(self.updates, UPDATES.counter(registry)),
            Fold(self._near_looks, NEAR_LOOKS.counter(registry)),
            Fold(self._near_drops, NEAR_DROPS.counter(registry)),
        ]
        self._call_metrics = CallMetrics(registry)
        self._folds.append(
            Fold(self._call_metrics.odd_fields, ODD_FIELDS.counter(registry))
        )
        self.requests = RequestMetrics(registry, request_labels)
        self.keys = KeyMetrics(registry)
        self.keys.restore(self._families.collect())
        self.degraded = Degraded(registry)
        self._entries = NEAR_ENTRIES.gauge(registry, "livesum")
        self._trusted = NEAR_TRUSTED.gauge(registry, "livemin")
        # Its series exist from the start, even if all Pages are of the file.
        self.of_page(DEFAULT_PAGE)

    def of_page(self, page: str) -> PageMetrics:
        """The counts of *page*, made once for each name."""
        with self._lock:
            if page not in self._pages:
                self._pages[page] = self._add_page(page)
            return self._pages[page]

    def _add_page(self, page: str) -> PageMetrics:
        requests = self.requests
        metrics = PageMetrics(self._call_metrics, self.keys, requests.new_counts())
        answers, calls, refreshes = self._page_counters
        self._folds += (
            Fold(metrics.plain_hits, answers, page),
            *requests.folds_of(metrics.plain_hits, metrics.requests, page),
            Fold(metrics.answers, answers, page),
            Fold(metrics.calls, calls, page),
            Fold(metrics.refreshes, refreshes, page),
        )
        return metrics

    def count_store_error(self, kind: str) -> None:
        """Count one of the *kind* ``reads`` or ``writes``."""
        self.store_errors[kind] += 1

    def count_updates(self, updates: Iterable[Update]) -> None:
        """Count the updates of an accepted webhook."""
        for update in updates:
            key = update.kind.value, update.result.value
            self.updates[key] += 1

    def keep_folding(self) -> None:
        """Fold once a second from now on, so that other workers see these counts.

        Never before a fork, which the thread would not survive: with the first
        request at the latest, and sooner by a server that knows of no fork to come.
        """
        if self._is_folding:
            return
        with self._lock:
            if not self._is_folding:
                self._is_folding = True
                threading.Thread(target=self._fold_for_ever, daemon=True).start()

    def _fold_for_ever(self) -> None:
        while True:
            self.fold()
            time.sleep(FOLD_EVERY)

    def fold(self) -> None:
        """Add to the library's counters what the plain counts have grown by."""
        with self._lock:
            if near := self.near:
                self._near_looks.update(
                    hit=near.hits, miss=near.misses, bypassed=near.bypassed
                )
                self._near_drops.update(
                    invalidated=near.invalidated, evicted=near.evicted
                )
                self._entries.set(near.size)
                self._trusted.set(near.is_trusted)
            for fold in self._folds:
                fold.add_growth()

    def collect(self) -> Iterable[Metric]:
        """The families of all workers of an instance, those of the store left out."""
        self.fold()
        return self._families.collect()

    def exposition(self, readings: Mapping[str, StoreReading] | None) -> bytes:
        """The text that Prometheus scrapes, summed over the workers of an instance.

        *readings* are of the store, by Page; None while it is away.
        """
        self.fold()
        collectors = (
            self._families,
            StoreCollector(readings),
            InstanceCollector(process_ids),
        )
        return b"".join(map(generate_latest, collectors))


_is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)


def require_gil(is_enabled: Callable[[], bool] = _is_gil_enabled) -> None:
    """Make sure that the GIL *is_enabled*; a Python before 3.13 always has it.

    Raises:
        GilDisabled: free-threaded Python would lose counts, and report nothing.
    """
    if not is_enabled():
        raise GilDisabled


def name_of(outcome: Outcome | LookupFailure) -> str:
    """The label of an outcome or a failure: ``profile``, a reason or a code."""
    match outcome:
        case Profile():
            return PROFILE
        case Refusal(reason=reason):
            return reason.value
        case failure:
            return failure.code
