"""Rows of people who are not in the cache: who asks Meta, and who waits how long."""

from __future__ import annotations

import json
from contextlib import ExitStack

from benchmarks import contenders, load
from benchmarks.children import CORES, LOAD, SERVER
from benchmarks.figures import Figure, milliseconds, ratio
from benchmarks.rounds import Pace, alone, page, path, paths, people, start


def misses(pace: Pace) -> list[Figure]:
    """200 distinct misses at once on one core, with Meta at 300 ms."""
    took, failed = [], []
    with ExitStack() as running:
        meta, ours = alone(running)
        load.prime(ours.port, paths(people(50)))
        for _ in pace.each([None]):
            cold = people(200)
            meta.hold_back(cold, 0.3)
            wall, asked = load.burst(ours.port, paths(cold))
            took.append(wall)
            failed.append(sum(call.status != 200 for call in asked))
    return [
        milliseconds("200 misses until the last answer", took, at_most=1000, aim=750),
        Figure(what="failed misses", samples=failed, exactly=0),
    ]


def cold_page(pace: Pace) -> list[Figure]:
    """A page of 100 people who are all missing, with Meta at 300 ms."""
    took, failed = [], []
    with ExitStack() as running:
        meta, ours = alone(running)
        load.prime(ours.port, paths(people(50)))
        for _ in pace.each([None]):
            cold = people(100)
            meta.hold_back(cold, 0.3)
            wall, [asked] = load.burst(ours.port, [page(cold)])
            told = json.loads(asked.received.partition(b"\r\n\r\n")[2] or b"{}")
            took.append(wall)
            failed.append(100 - len(told.get("profiles", [])))
    return [
        milliseconds("a cold page of 100", took, at_most=800),
        Figure(what="people who are missing on it", samples=failed, exactly=0),
    ]


def stampede(pace: Pace) -> list[Figure]:
    """500 callers of one cold person over 2 processes, with Meta at 500 ms."""
    callers, seconds = 500, 0.5
    figures: list[Figure] = []
    took: dict[str, list[float]] = {}
    calls: dict[str, list[float]] = {}
    failed: dict[str, list[float]] = {}
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        store, theirs = (
            running.enter_context(contenders.store(CORES)) for _ in range(2)
        )
        there = start(
            running,
            figures,
            {
                "profile-proxy": contenders.profile_proxy(
                    meta, store, workers=2, cores=CORES
                ),
                "varnish": contenders.varnish(meta, cores=CORES),
                "nginx": contenders.nginx(meta, workers=2, cores=CORES),
                "memoize": contenders.memoize(meta, theirs, workers=2, cores=CORES),
            },
        )
        for contender in there:
            load.prime(contender.port, paths(people(64)))
        for contender in pace.each(there):
            (igsid,) = people(1)
            meta.hold_back([igsid], seconds)
            wall, asked = load.burst(contender.port, callers * [path(igsid)])
            took.setdefault(contender.name, []).append(wall)
            calls.setdefault(contender.name, []).append(meta.calls(igsid))
            bad = sum(call.status != 200 for call in asked)
            failed.setdefault(contender.name, []).append(bad)
    for name in took:
        only = 1 if name == "profile-proxy" else None
        figures.append(
            Figure(what=f"calls to Meta, {name}", samples=calls[name], exactly=only)
        )
        figures.append(milliseconds(f"the whole burst, {name}", took[name]))
    none_failed = failed["profile-proxy"]
    figures.append(Figure(what="failed callers", samples=none_failed, exactly=0))
    if "varnish" in took:
        ours, other = took["profile-proxy"], took["varnish"]
        figures.append(ratio("the burst against varnish's", ours, other, at_most=1.2))
    return figures


def waiters(pace: Pace) -> list[Figure]:
    """50 waiters of one cold person beside the leader, 50 in another process."""
    near: list[float] = []
    far: list[float] = []
    calls: list[float] = []
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        store = running.enter_context(contenders.store(CORES))
        leading, following = (
            running.enter_context(contenders.profile_proxy(meta, store, cores=cores))
            for cores in (LOAD, SERVER)
        )
        for contender in (leading, following):
            load.prime(contender.port, paths(people(64)))
        for _ in pace.each(range(3)):
            (igsid,) = people(1)
            meta.hold_back([igsid], 0.5)
            leader = load.send(leading.port, path(igsid))
            meta.wait_for(1, igsid)
            beside = [load.send(leading.port, path(igsid)) for _ in range(50)]
            away = [load.send(following.port, path(igsid)) for _ in range(50)]
            load.collect([leader, *beside, *away])
            near.append(max(call.ended_at for call in beside) - leader.ended_at)
            far.append(max(call.ended_at for call in away) - leader.ended_at)
            calls.append(meta.calls(igsid))
    return [
        milliseconds("the slowest of 50 after its leader", near, at_most=25),
        milliseconds("the slowest of 50 in another process", far, at_most=60),
        Figure(what="calls to Meta", samples=calls, exactly=1),
    ]
