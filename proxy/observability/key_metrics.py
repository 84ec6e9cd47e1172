"""The metrics of API keys: the calls to Meta that each has led, and what they got."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from proxy.domain.profile import Reason
from proxy.observability.series import PREFIX, Declaration

KEY_CALLS = Declaration(
    "key_calls_total", "Calls to Meta that requests with an API key have led.", ("key",)
)
KEY_FORCED_CALLS = Declaration(
    "key_forced_calls_total",
    "Those of the calls that were made although a usable entry may have been stored.",
    ("key",),
)
KEY_REFUSALS = Declaration(
    "key_refusals_total",
    "Those of the calls that ended in a refusal, by its reason.",
    ("key", "reason"),
)

MOST_KEYS = 100
"""Names of keys that have series of their own."""

OTHER_KEYS = "(other)"
"""The name under which the calls of all further keys are counted."""


class KeyMetrics:
    """Counts by the name of an API key; names are the operator's own.

    A call to Meta costs far more than these counts, so they are the library's own.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = KEY_CALLS.counter(registry)
        self._forced = KEY_FORCED_CALLS.counter(registry)
        self._refusals = KEY_REFUSALS.counter(registry)
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def restore(self, families: Iterable[Metric]) -> None:
        """Take the names that the workers of this instance have counted by already."""
        for sample in chain.from_iterable(each.samples for each in families):
            if sample.name == PREFIX + KEY_CALLS.name:
                self._names.add(sample.labels["key"])

    def add(self, names: Iterable[str]) -> None:
        """Begin the series of these *names* with 0."""
        for name in dict.fromkeys(names):
            self._label(name)

    def count(self, name: str, refusal: Reason | None, *, is_forced: bool) -> None:
        """Count one call to Meta that the key of this *name* has led."""
        label = self._label(name)
        self._calls.labels(label).inc()
        if is_forced:
            self._forced.labels(label).inc()
        if refusal is not None:
            self._refusals.labels(label, refusal.value).inc()

    def _label(self, name: str) -> str:
        """Return *name*, or OTHER_KEYS once there are enough of them."""
        with self._lock:
            if name not in self._names:
                if len(self._names) >= MOST_KEYS:
                    return OTHER_KEYS
                self._names.add(name)
                self._calls.labels(name)
                self._forced.labels(name)
                for reason in Reason:
                    self._refusals.labels(name, reason.value)
        return name
