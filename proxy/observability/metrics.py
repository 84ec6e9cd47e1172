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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Histogram,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from proxy.domain.answer import Answer, FetchResult, Source
from proxy.domain.failures import FAILURES, Cause, LookupFailure
from proxy.domain.profile import (
    DEFAULT_PAGE,
    FIELDS,
    Outcome,
    Profile,
    Reason,
    Refusal,
)
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult
from proxy.observability.multiprocess import WorkersCollector, shared_folder
from proxy.observability.series import PREFIX, Declaration, Fold, Key, WithoutCreated

CONTENT_TYPE = CONTENT_TYPE_LATEST

FOLD_EVERY = 1.0
"""Seconds by which the counts of other workers may be late in a scrape."""

MOST_VERSIONS = 8
"""Versions of the Graph API that a process names; Meta changes its own once a year."""

SECONDS_OF_A_CALL = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Buckets, around what Meta takes and up to twice the default ``GRAPH_TIMEOUT``."""

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
CALL_SECONDS = Declaration("graph_call_seconds", "How long a call to Meta took.")
GRAPH_VERSION = Declaration(
    "graph_version_info",
    "1 for the version of the Graph API that answered last.",
    ("version",),
)
ODD_FIELDS = Declaration(
    "graph_odd_fields_total",
    "Fields of profiles that Meta sent with a value of another type or shape.",
    ("field",),
)
NEAR_ENTRIES = Declaration("near_entries", "Entries in the near caches, all workers'.")
NEAR_TRUSTED = Declaration(
    "near_trusted", "1 while every worker may use its near cache."
)
STORE_UP = Declaration("store_up", "1 while the store answers.")
GATE_CLOSED = Declaration(
    "gate_closed_for_seconds",
    "For how long Meta will not be asked yet, by cause; 0 when it may be.",
    ("cause", "page"),
)
GRAPH_USAGE = Declaration(
    "graph_usage_ratio", "How much of Meta's quota is used: 1 is all of it.", ("page",)
)


class GilDisabled(RuntimeError):
    """This Python runs without the GIL, which the counts rely on."""

    def __init__(self) -> None:
        super().__init__(
            "This Python runs without its global interpreter lock (GIL), and counts"
            " would be lost. Use a standard build of Python, or set PYTHON_GIL=1."
        )


@dataclass(frozen=True, slots=True)
class StoreReading:
    """The state of a Page in the store, for all workers; *closed_for* in seconds."""

    closed_for: Mapping[Cause, float]
    usage_percent: float | None


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

    def __init__(self, call_metrics: _CallMetrics) -> None:
        self.answers = _zeros(
            *product(("near", "hit", "fetched", "collapsed"), OUTCOMES),
            ("stale", PROFILE),
            *(("none", code) for code in FAILURE_CODES),
        )
        """By source and outcome; the source ``none`` is a failure."""
        self.calls = _zeros(*OUTCOMES, *GRAPH_FAILURE_CODES)
        self.refreshes = _zeros("succeeded", "failed")
        self._call_metrics = call_metrics

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

    def count_call(self, result: FetchResult, seconds: float) -> None:
        """Count one call to Meta, which took so many seconds."""
        self.calls[name_of(result.outcome)] += 1
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

    def __init__(self) -> None:
        require_gil()
        self.store_errors = _zeros("reads", "writes")
        self.webhooks = _zeros("accepted", "refused", "unreadable", "failed")
        self.updates = _zeros(
            *(
                (kind.value, result.value)
                for kind, result in product(UpdateKind, UpdateResult)
                if result is UpdateResult.IGNORED or kind in _WRITTEN
            )
        )
        """By kind and result."""
        self.near: NearCounts | None = None
        self._near_looks = _zeros("hit", "miss", "bypassed")
        self._near_drops = _zeros("invalidated", "evicted")
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
        self._folds: list[Fold[str] | Fold[tuple[str, str]]] = [
            Fold(self.store_errors, STORE_ERRORS.counter(registry)),
            Fold(self.webhooks, WEBHOOKS.counter(registry)),
            Fold(self.updates, UPDATES.counter(registry)),
            Fold(self._near_looks, NEAR_LOOKS.counter(registry)),
            Fold(self._near_drops, NEAR_DROPS.counter(registry)),
        ]
        self._call_metrics = _CallMetrics(registry)
        self._folds.append(
            Fold(self._call_metrics.odd_fields, ODD_FIELDS.counter(registry))
        )
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
        metrics = PageMetrics(self._call_metrics)
        answers, calls, refreshes = self._page_counters
        self._folds += (
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
        return generate_latest(self._families) + generate_latest(_OfStore(readings))


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


def _zeros(*keys: Key) -> dict[Key, int]:
    return dict.fromkeys(keys, 0)


class _CallMetrics:
    """Of the calls of all Pages: how long they take, the version, and odd fields."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.odd_fields = _zeros(*FIELDS)
        self._seconds = Histogram(
            PREFIX + CALL_SECONDS.name,
            CALL_SECONDS.help,
            buckets=SECONDS_OF_A_CALL,
            registry=registry,
        )
        self._version = GRAPH_VERSION.gauge(registry, "livemax")
        self._versions: list[str] = []
        self._lock = threading.Lock()

    def observe(self, seconds: float, version: str | None) -> None:
        self._seconds.observe(seconds)
        if version is not None:
            self._note_version(version)

    def _note_version(self, version: str) -> None:
        with self._lock:
            if version in self._versions[-1:]:
                return
            if version in self._versions:
                self._versions.remove(version)
            elif len(self._versions) == MOST_VERSIONS:
                return
            for last in self._versions[-1:]:
                self._version.labels(last).set(0)
            self._versions.append(version)
            self._version.labels(version).set(1)


class _OfStore(Collector):
    """Collects what is read from the store for a scrape, once for all workers."""

    def __init__(self, readings: Mapping[str, StoreReading] | None) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        readings = self._readings
        up = STORE_UP.family()
        up.add_metric([], float(readings is not None))
        yield up
        if readings is None:
            return
        closed, usage = GATE_CLOSED.family(), GRAPH_USAGE.family()
        for page, reading in readings.items():
            for cause, seconds in reading.closed_for.items():
                closed.add_metric([cause.value, page], seconds)
            if reading.usage_percent is not None:
                usage.add_metric([page], reading.usage_percent / 100)
        yield closed
        if usage.samples:
            yield usage
