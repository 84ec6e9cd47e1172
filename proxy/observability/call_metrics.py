"""The metrics of calls to Meta: how long they take, the version, and odd fields."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Histogram

from proxy.domain.profile import FIELDS
from proxy.observability.series import PREFIX, Declaration, zeros

MOST_VERSIONS = 8
"""Versions of the Graph API that a process names; Meta changes its own once a year."""

SECONDS_OF_A_CALL = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Buckets, around what Meta takes and up to twice the default ``GRAPH_TIMEOUT``."""

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


class CallMetrics:
    """Of the calls of all Pages: how long they take, the version, and odd fields."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.odd_fields = zeros(*FIELDS)
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
