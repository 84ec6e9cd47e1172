"""The metrics of an instance as a whole: its version, and what its processes use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from proxy.observability.series import Declaration

BUILD_INFO = Declaration("build_info", "1 for the version that runs.", ("version",))

DISTRIBUTION = "graph-profile-proxy"

_LEAST_OF = frozenset({"process_start_time_seconds", "process_max_fds"})
"""The metrics of processes that are not added up: the least stands for all."""


class InstanceCollector(Collector):
    """Collects the version, and the library's ``process_*`` summed over workers.

    The library knows its own process only, and cannot add up such metrics in its files;
    but it reads them from /proc, which has those of all workers.
    """

    def __init__(self, process_ids: Callable[[], Iterable[str]]) -> None:
        self._process_ids = process_ids

    def collect(self) -> Iterator[Metric]:
        build = BUILD_INFO.family()
        build.add_metric([version()], 1.0)
        yield build
        yield from _combined(self._process_ids())


def version() -> str:
    """Return the version that is installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def _combined(process_ids: Iterable[str]) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for process_id in process_ids:
        collector = ProcessCollector(pid=partial(str, process_id), registry=None)
        for family in collector.collect():
            known = families.setdefault(family.name, family)
            if known is not family:
                [before], [sample] = known.samples, family.samples
                values = before.value, sample.value
                value = min(values) if family.name in _LEAST_OF else sum(values)
                known.samples = [sample._replace(value=value)]
    return families.values()
