"""Every metric, declared once: plain counts, and how Prometheus gets to see them.

What is counted often is a plain integer in a dict whose keys are all there from the
start: no series that is not in this file, and 0 rather than nothing before the first
one. What has grown is folded into the library's counters once a second, in each
process, and when somebody asks. Labels come from our own enums and tables, never from
a request or from Meta's words.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from glob import glob
from itertools import count, product
from typing import Generic, Literal, Protocol, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from proxy.domain.answer import Answer, FetchResult, Source
from proxy.domain.failures import (
    FAILURES,
    Cause,
    LookupFailure,
)
from proxy.domain.profile import DEFAULT_PAGE, Outcome, Profile, Reason, Refusal
from proxy.domain.webhook_update import Update, UpdateKind, UpdateResult

CONTENT_TYPE = CONTENT_TYPE_LATEST

FOLDED_EVERY = 1.0
"""Seconds by which what other workers counted may be late in a scrape."""

MOST_VERSIONS = 8
"""Versions of the Graph API that a process names; Meta changes its own once a year."""

SECONDS_OF_A_CALL = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Buckets, around what Meta takes and up to twice the default ``GRAPH_TIMEOUT``."""

PROFILE = "profile"
OUTCOMES = (PROFILE, *(reason.value for reason in Reason))

FAILURE_CODES = tuple(failure.code for failure in FAILURES)
GRAPH_FAILURE_CODES = tuple(failure.code for failure in FAILURES if failure.cause)
"""Every failure, and every one that a call to Meta can end in."""

_WRITING = UpdateKind.MESSAGE, UpdateKind.POSTBACK
"""The updates that can tell that somebody has written; the others are ignored."""

PREFIX = "profile_proxy_"

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which the library knows where to sum."""

Key = TypeVar("Key", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class StoreReading:
    """What the store tells all alike of a Page; *closed_for* is in seconds."""

    closed_for: Mapping[Cause, float]
    usage_percent: float | None


HITS = ("near", "hit", "stale")
SOURCES = (*HITS, "fetched", "collapsed", "none")
"""Where an answer comes from; for the first ones nobody had to wait for Meta."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What an instance has counted since it was started.

    *answers* by source and outcome; *calls* to Meta.
    """

    answers: Mapping[tuple[str, str], int]
    calls: int

    @classmethod
    def of(cls, families: Iterable[Metric], page: str | None = None) -> Totals:
        """Read them from what Prometheus gets to see, of one Page or of all."""
        answers: dict[tuple[str, str], int] = {}
        calls = 0
        for sample in (each for family in families for each in family.samples):
            if page is not None and sample.labels.get("page") != page:
                continue
            if sample.name == PREFIX + "answers_total":
                key = sample.labels["source"], sample.labels["outcome"]
                answers[key] = answers.get(key, 0) + int(sample.value)
            elif sample.name == PREFIX + "graph_calls_total":
                calls += int(sample.value)
        return cls(answers, calls)

    @property
    def lookups(self) -> int:
        return sum(self.answers.values())

    @property
    def hits(self) -> int:
        by_source = self.by_source()
        return sum(by_source[source] for source in HITS)

    @property
    def hit_ratio(self) -> float | None:
        """The share of lookups that nobody waited for; None before the first."""
        return self.hits / self.lookups if self.lookups else None

    @property
    def calls_saved(self) -> int:
        """How many calls fewer than if each lookup had been one."""
        return max(0, self.lookups - self.calls)

    def by_source(self) -> dict[str, int]:
        return self._sum(0, SOURCES)

    def by_outcome(self) -> dict[str, int]:
        return self._sum(1, (*OUTCOMES, *FAILURE_CODES))

    def _sum(self, place: int, names: Iterable[str]) -> dict[str, int]:
        sums = dict.fromkeys(names, 0)
        for key, counted in self.answers.items():
            sums[key[place]] = sums.get(key[place], 0) + counted
        return sums


class NearCounts(Protocol):
    """What a near cache counts itself, for it is asked more often than anybody."""

    hits: int
    misses: int
    bypassed: int
    invalidated: int
    evicted: int

    @property
    def size(self) -> int: ...

    @property
    def is_trusted(self) -> bool: ...


class Metrics:
    """What one process counts, of one Page what is a Page's.

    ``metrics.answers["near", "profile"] += 1`` is right without a lock, from any
    thread: CPython passes the GIL on between two bytecodes only where a function is
    entered, a call returns or a loop jumps back, and none of these lies between the
    read and the write. That holds for keys of plain ``str``, whose hash is no Python
    code, and for ``+=`` on the subscript; not for a count behind a method call.
    """

    def __init__(self, page: str = DEFAULT_PAGE) -> None:
        self.store_errors = _zeros("reads", "writes")
        self.near_looks = _zeros("hit", "miss", "bypassed")
        self.near_drops = _zeros("invalidated", "evicted")
        self.webhooks = _zeros("accepted", "refused", "unreadable", "failed")
        self.updates = _zeros(
            *(
                (kind.value, result.value)
                for kind, result in product(UpdateKind, UpdateResult)
                if result is UpdateResult.IGNORED or kind in _WRITING
            )
        )
        """By kind and result."""
        self.near: NearCounts | None = None
        self._lock = threading.Lock()
        self._versions: list[str] = []
        is_shared = values.ValueClass._multiprocess
        self._is_folding = not is_shared  # A process by itself folds when asked.
        self._registry = CollectorRegistry()
        self._folds: list[_Fold[str] | _Fold[tuple[str, str]]] = []
        self._declare(None if is_shared else self._registry)
        self._by_page = {page: self}
        self._begin(page)
        if is_shared:
            self._registry.register(_OfWorkers(os.environ[_FOLDER]))

    def of_page(self, page: str) -> Metrics:
        """The same, counting what is *page*'s for that one. Made once for each name."""
        with self._lock:
            if page not in self._by_page:
                other = copy(self)
                other._begin(page)
                self._by_page[page] = other
            return self._by_page[page]

    def _begin(self, page: str) -> None:
        """Begin to count for *page*."""
        self.answers = _zeros(
            *product(("near", "hit", "fetched", "collapsed"), OUTCOMES),
            ("stale", PROFILE),
            *(("none", code) for code in FAILURE_CODES),
        )
        """By source and outcome; the source ``none`` is a failure."""
        self.calls = _zeros(*OUTCOMES, *GRAPH_FAILURE_CODES)
        self.refreshes = _zeros("succeeded", "failed")
        answers, calls, refreshes = self._of_pages
        self._folds += (
            _Fold(self.answers, answers, page),
            _Fold(self.calls, calls, page),
            _Fold(self.refreshes, refreshes, page),
        )

    def _declare(self, registry: CollectorRegistry | None) -> None:
        disable_created_metrics()  # A second series for each, which nobody asks for.

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, about, labels, registry=registry)

        def folded(
            counts: dict[Key, int], name: str, about: str, *labels: str
        ) -> _Fold[Key]:
            return _Fold(counts, counter(name, about, *labels))

        self._of_pages = (
            counter(
                "answers_total",
                "Lookups, by where the answer came from and what it was.",
                "source",
                "outcome",
                "page",
            ),
            counter("graph_calls_total", "Calls to Meta.", "result", "page"),
            counter(
                "refreshes_total",
                "Stale profiles that were to be refreshed.",
                "result",
                "page",
            ),
        )
        self._folds += (
            folded(
                self.store_errors,
                "store_errors_total",
                "Times the store did not do as it was told.",
                "kind",
            ),
            folded(
                self.webhooks,
                "webhooks_total",
                "Webhooks, by what became of them.",
                "result",
            ),
            folded(
                self.updates,
                "webhook_updates_total",
                "Updates in accepted webhooks.",
                "kind",
                "result",
            ),
            folded(
                self.near_looks,
                "near_looks_total",
                "Looks into the near cache.",
                "result",
            ),
            folded(
                self.near_drops,
                "near_drops_total",
                "Entries that the near cache let go.",
                "cause",
            ),
        )

        def gauge(
            name: str,
            about: str,
            mode: Literal["livemax", "livemin", "livesum"],
            *labels: str,
        ) -> Gauge:
            return Gauge(
                PREFIX + name,
                about,
                labels,
                registry=registry,
                multiprocess_mode=mode,
            )

        self._seconds = Histogram(
            PREFIX + "graph_call_seconds",
            "How long a call to Meta took.",
            buckets=SECONDS_OF_A_CALL,
            registry=registry,
        )
        self._version = gauge(
            "graph_version_info",
            "1 for the version of the Graph API that answered last.",
            "livemax",
            "version",
        )
        self._entries = gauge(
            "near_entries", "Entries in the near caches, all workers'.", "livesum"
        )
        self._trusted = gauge(
            "near_trusted", "1 while every worker may use its near cache.", "livemin"
        )

    def count_answer(self, answer: Answer, now: float) -> None:
        """Count one answer, given at *now*, in epoch seconds."""
        source, outcome = answer.source.name.lower(), name_of(answer.entry.outcome)
        if answer.source in (Source.HIT, Source.STALE):
            is_stale = now >= answer.entry.fresh_until and outcome == PROFILE
            source = "stale" if is_stale else "hit"
        self.answers[source, outcome] += 1

    def count_failure(self, failure: LookupFailure) -> None:
        """Count one lookup that told nothing."""
        self.answers["none", failure.code] += 1

    def count_store_error(self, kind: str) -> None:
        """Count one of the *kind* ``reads`` or ``writes``."""
        self.store_errors[kind] += 1

    def count_call(self, told: FetchResult, seconds: float) -> None:
        """Count one call to Meta, which took so many seconds."""
        self.calls[name_of(told.outcome)] += 1
        self._seconds.observe(seconds)
        if told.graph_version is not None:
            self._note_version(told.graph_version)

    def count_updates(self, updates: Iterable[Update]) -> None:
        """Count what a webhook has told."""
        for update in updates:
            key = update.kind.value, update.result.value
            self.updates[key] += 1

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

    def keep_folding(self) -> None:
        """Let other workers see what is counted here, from now on.

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
            time.sleep(FOLDED_EVERY)

    def fold(self) -> None:
        """Take over into Prometheus what the plain counts have grown by."""
        with self._lock:
            if near := self.near:
                self.near_looks.update(
                    hit=near.hits, miss=near.misses, bypassed=near.bypassed
                )
                self.near_drops.update(
                    invalidated=near.invalidated, evicted=near.evicted
                )
                self._entries.set(near.size)
                self._trusted.set(near.is_trusted)
            for fold in self._folds:
                fold.take_over()

    def totals(self, page: str | None = None) -> Totals:
        """The sums over the workers of an instance, as a scrape would tell them."""
        self.fold()
        return Totals.of(self._registry.collect(), page)

    def exposition(self, readings: Mapping[str, StoreReading] | None) -> bytes:
        """All of it as Prometheus reads it, summed over the workers of an instance.

        *readings* are what the store tells, by Page; None while it is away.
        """
        self.fold()
        return generate_latest(self._registry) + generate_latest(_OfStore(readings))


def name_of(outcome: Outcome | LookupFailure) -> str:
    """The label of an outcome or a failure: ``profile``, a reason or a code."""
    match outcome:
        case Profile():
            return PROFILE
        case Refusal(reason=reason):
            return reason.value
        case failure:
            return failure.code


def share(folder: str) -> None:
    """Sum this process's metrics with those of all others that share *folder*.

    Before the first Metrics of the process is made. The library would name files
    by process id, so that each worker that dies leaves its own for ever; a
    worker's place outlives it, and the next one counts on from there.
    """
    place = _take_place(folder)
    mark_process_dead(place, folder)
    os.environ[_FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(lambda: place)


def _take_place(folder: str) -> str:
    """The first place that no process which is alive has taken.

    It is ours for as long as the file is open, and however we end.
    """
    for place in map(str, count()):
        file = os.open(os.path.join(folder, place), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return place
    raise AssertionError("there is always another place")


def _zeros(*keys: Key) -> dict[Key, int]:
    return dict.fromkeys(keys, 0)


class _Fold(Generic[Key]):
    """Plain counts by their labels, and how much of them a counter has taken over.

    *more* are labels that all of them have in common, after their own.
    """

    def __init__(self, counts: dict[Key, int], counter: Counter, *more: str) -> None:
        self._counts: dict[Key, int] = counts
        self._taken: dict[Key, int] = dict(counts)
        self._series: dict[Key, Counter] = {
            key: counter.labels(*((key,) if isinstance(key, str) else key), *more)
            for key in counts
        }

    def take_over(self) -> None:
        for key, counted in self._counts.items():
            if grown := counted - self._taken[key]:
                self._series[key].inc(grown)
                self._taken[key] = counted


class _OfWorkers(Collector):
    """What all workers have folded into the files of a *folder*.

    The library's own collector fails on a file that is still empty, because its
    worker begins this moment, or was killed in it.

    Source: https://github.com/prometheus/client_python/issues/1199
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = glob(os.path.join(self._folder, "*.db"))
        return MultiProcessCollector.merge(filter(_is_begun, files))  # type: ignore[no-any-return]


def _is_begun(file: str) -> bool:
    try:
        return os.stat(file).st_size > 0
    except FileNotFoundError:
        return False  # A gauge of the dead, whose place was taken just now.


class _OfStore(Collector):
    """What is read for a scrape, and is not any process's own."""

    def __init__(self, readings: Mapping[str, StoreReading] | None) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        readings = self._readings
        yield GaugeMetricFamily(
            PREFIX + "store_up",
            "1 while the store answers.",
            float(readings is not None),
        )
        if readings is None:
            return
        closed = GaugeMetricFamily(
            PREFIX + "gate_closed_for_seconds",
            "For how long Meta will not be asked yet, by cause; 0 when it may be.",
            labels=["cause", "page"],
        )
        usage = GaugeMetricFamily(
            PREFIX + "graph_usage_ratio",
            "How much of Meta's quota is used: 1 is all of it.",
            labels=["page"],
        )
        for page, reading in readings.items():
            for cause, seconds in reading.closed_for.items():
                closed.add_metric([cause.value, page], seconds)
            if reading.usage_percent is not None:
                usage.add_metric([page], reading.usage_percent / 100)
        yield closed
        if usage.samples:
            yield usage
