"""The Prometheus library's series: made from declarations, fed from plain counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Literal, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "profile_proxy_"

Key = TypeVar("Key", str, tuple[str, str], tuple[str, int])


class Declaration(NamedTuple):
    """A metric: its name without `PREFIX`, its help text and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        return Counter(PREFIX + self.name, self.help, self.labels, registry=registry)

    def gauge(
        self,
        registry: CollectorRegistry,
        mode: Literal["livemax", "livemin", "livesum"],
    ) -> Gauge:
        """A gauge; *mode* is how those of the workers that live become one."""
        return Gauge(
            PREFIX + self.name,
            self.help,
            self.labels,
            registry=registry,
            multiprocess_mode=mode,
        )

    def family(self) -> GaugeMetricFamily:
        """An empty family of gauges, to be filled during a scrape."""
        return GaugeMetricFamily(PREFIX + self.name, self.help, labels=self.labels)


class Fold(Generic[Key]):
    """Plain counts by their labels, and how much of them a counter has already.

    *more* are labels that all of them have in common, after their own; or *labels*
    returns all labels of a key.
    """

    def __init__(
        self,
        counts: dict[Key, int],
        counter: Counter,
        *more: str,
        labels: Callable[[Key], tuple[str | int, ...]] | None = None,
    ) -> None:
        def own(key: Key) -> tuple[str | int, ...]:
            return (key, *more) if isinstance(key, str) else (*key, *more)

        self._counts: dict[Key, int] = counts
        self._added: dict[Key, int] = dict(counts)
        self._series: dict[Key, Counter] = {
            key: counter.labels(*(labels or own)(key)) for key in counts
        }

    def add_growth(self) -> None:
        """Add to the counter what the counts have grown by since the last time."""
        for key, counted in self._counts.items():
            if grown := counted - self._added[key]:
                self._series[key].inc(grown)
                self._added[key] = counted


class WithoutCreated(Collector):
    """Collects a registry without the second series of each counter: its birth.

    The library can leave them out itself, but by a global of the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family


def zeros(*keys: Key) -> dict[Key, int]:
    """Plain counts that are 0."""
    return dict.fromkeys(keys, 0)
