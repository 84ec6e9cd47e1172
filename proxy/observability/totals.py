"""Totals: the sums of an instance's counts that ``stats`` and ``top`` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from proxy.observability.key_metrics import (
    KEY_CALLS,
    KEY_FORCED_CALLS,
    KEY_REFUSALS,
)
from proxy.observability.metrics import (
    ANSWERS,
    CALLS,
    FAILURE_CODES,
    OUTCOMES,
    Metrics,
)
from proxy.observability.series import PREFIX

HITS = ("near", "hit", "stale")
SOURCES = (*HITS, "fetched", "collapsed", "none")
"""The sources of an answer; those of `HITS` did not wait for Meta."""


@dataclass(slots=True)
class KeyTotals:
    """The calls to Meta that an API key has led: all, forced ones, and refusals."""

    calls: int = 0
    forced: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Add one *sample* of the metrics of keys."""
        value = int(sample.value)
        match sample.name.removeprefix(PREFIX):
            case KEY_CALLS.name:
                self.calls += value
            case KEY_FORCED_CALLS.name:
                self.forced += value
            case KEY_REFUSALS.name:
                self.refusals[sample.labels["reason"]] = value
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of an instance since it was started.

    *answers* by source and outcome; *calls* to Meta; *keys* by the name of an API key,
    for all Pages.
    """

    answers: Mapping[tuple[str, str], int]
    calls: int
    keys: Mapping[str, KeyTotals] = field(default_factory=dict)

    @classmethod
    def of(cls, families: Iterable[Metric], page: str | None = None) -> Totals:
        """Sum the *families* of a scrape, for one Page or for all."""
        answers: dict[tuple[str, str], int] = {}
        calls = 0
        keys: dict[str, KeyTotals] = {}
        for sample in (each for family in families for each in family.samples):
            if name := sample.labels.get("key"):
                keys.setdefault(name, KeyTotals()).add(sample)
            if page is not None and sample.labels.get("page") != page:
                continue
            if sample.name == PREFIX + ANSWERS.name:
                key = sample.labels["source"], sample.labels["outcome"]
                answers[key] = answers.get(key, 0) + int(sample.value)
            elif sample.name == PREFIX + CALLS.name:
                calls += int(sample.value)
        return cls(answers, calls, keys)

    @property
    def lookups(self) -> int:
        return sum(self.answers.values())

    @property
    def hits(self) -> int:
        by_source = self.by_source()
        return sum(by_source[source] for source in HITS)

    @property
    def hit_ratio(self) -> float | None:
        """The share of lookups that did not wait for Meta; None before the first."""
        return self.hits / self.lookups if self.lookups else None

    @property
    def calls_saved(self) -> int:
        """How many calls fewer than if each lookup had been one."""
        return max(0, self.lookups - self.calls)

    def by_source(self) -> dict[str, int]:
        return self._sum(0, SOURCES)

    def by_outcome(self) -> dict[str, int]:
        return self._sum(1, (*OUTCOMES, *FAILURE_CODES))

    def _sum(self, index: int, names: Iterable[str]) -> dict[str, int]:
        """Sum the answers by one part of their key, with 0 for each of *names*."""
        sums = dict.fromkeys(names, 0)
        for key, counted in self.answers.items():
            sums[key[index]] = sums.get(key[index], 0) + counted
        return sums


def totals_of(metrics: Metrics, page: str | None = None) -> Totals:
    """The sums over all workers of an instance, as a scrape would report them."""
    return Totals.of(metrics.collect(), page)
