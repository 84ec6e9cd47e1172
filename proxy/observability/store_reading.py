"""The metrics that are read from the store at a scrape, once for all workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from proxy.domain.failures import Cause
from proxy.observability.series import Declaration

STORE_UP = Declaration("store_up", "1 while the store answers.")
GATE_CLOSED = Declaration(
    "gate_closed_for_seconds",
    "For how long Meta will not be asked yet, by cause; 0 when it may be.",
    ("cause", "page"),
)
GRAPH_USAGE = Declaration(
    "graph_usage_ratio", "How much of Meta's quota is used: 1 is all of it.", ("page",)
)


@dataclass(frozen=True, slots=True)
class StoreReading:
    """The state of a Page in the store, for all workers; *closed_for* in seconds."""

    closed_for: Mapping[Cause, float]
    usage_percent: float | None


class StoreCollector(Collector):
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
