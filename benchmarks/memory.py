"""Rows of memory: an entry in Redis, and a worker."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import contenders, load, stored
from benchmarks.children import CORES, Missing, find
from benchmarks.contenders import APT
from benchmarks.figures import Figure
from benchmarks.rounds import Pace, paths, people

IDLE_AFTER = 2.0
"""Seconds after which a worker has finished its start."""


def redis_memory(pace: Pace) -> list[Figure]:
    """Memory of Redis for each of 50,000 profiles, as it reports it."""
    figures = [_bytes_each("the embedded engine", None)]
    try:
        binary = Path(find("redis-server", f"{APT} redis-server"))
        figures.append(_bytes_each("redis-server", binary))
    except Missing as missing:
        figures.append(Figure(what="redis-server", note=str(missing)))
    return figures


def _bytes_each(name: str, binary: Path | None) -> Figure:
    crowd = people(50_000)
    with contenders.store(CORES, binary=binary) as store:
        before = stored.used_bytes(store)
        stored.fill(store, stored.entries(crowd))
        each = (stored.used_bytes(store) - before) / len(crowd)
    return Figure(
        what=f"a profile, {name}", samples=[each], unit="bytes", at_most=700, aim=450
    )


def worker_memory(pace: Pace) -> list[Figure]:
    """An idle worker, and one after 200,000 people went through its near cache."""
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        store = running.enter_context(contenders.store(CORES))
        ours = running.enter_context(
            contenders.profile_proxy(meta, store, workers=2, cores=CORES)
        )
        time.sleep(IDLE_AFTER)
        idle = [_mebibytes(pid) for pid in _workers(ours.process.pid)]
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        store = running.enter_context(contenders.store(CORES))
        ours = running.enter_context(contenders.profile_proxy(meta, store, cores=CORES))
        (worker,) = _workers(ours.process.pid)
        few, crowd = people(100), people(200_000)
        stored.fill(store, stored.entries(few + crowd))
        load.prime(ours.port, 100 * paths(few), at_once=64)
        before = _mebibytes(worker)["Pss"]
        load.prime(ours.port, paths(crowd), at_once=64)
        after = _mebibytes(worker)["Pss"]
    return [
        _figure("an idle worker (RSS)", [each["Rss"] for each in idle], 90, 60),
        _figure("an idle worker (PSS)", [each["Pss"] for each in idle]),
        _figure("a worker that knows 100 people (PSS)", [before]),
        _figure("the same after 200,000 more (PSS)", [after]),
    ]


def _figure(
    what: str,
    samples: list[float],
    at_most: float | None = None,
    aim: float | None = None,
) -> Figure:
    return Figure(what=what, samples=samples, unit="MiB", at_most=at_most, aim=aim)


def _workers(parent: int) -> list[int]:
    """Return the worker processes: all children except Python's resource tracker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _mebibytes(pid: int) -> dict[str, float]:
    """Return a process's memory by name: ``Rss``, and ``Pss`` with shared pages split.

    Source: https://docs.kernel.org/filesystems/proc.html
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.findall(r"^(\w+):\s+(\d+) kB$", rollup, re.MULTILINE)
    return {name: int(kibibytes) / 1024 for name, kibibytes in found}
