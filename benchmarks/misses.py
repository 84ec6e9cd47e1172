"""Rows of misses: the calls to Meta, and the waits."""

from __future__ import annotations

import json
from contextlib import ExitStack

from benchmarks import contenders, load
from benchmarks.children import CORES, LOAD, SERVER
from benchmarks.figures import Figure, milliseconds, ratio
from benchmarks.rounds import Pace, alone, batch, path, paths, people, start


def misses(pace: Pace) -> list[Figure]:
    """200 distinct misses at once on one core, with Meta at 300 ms."""
    took, failed = [], []
    with ExitStack() as running:
        meta, ours = alone(running)
        load.prime(ours.port, paths(people(50)))
        for _ in pace.each([None]):
            cold = people(200)
            meta.delay(cold, 0.3)
            wall, calls_made = load.burst(ours.port, paths(cold))
            took.append(wall)
            failed.append(sum(call.status != 200 for call in calls_made))
    return [
        milliseconds("200 misses until the last answer", took, at_most=1000, aim=750),
        Figure(what="failed misses", samples=failed, exactly=0),
    ]


def cold_batch(pace: Pace) -> list[Figure]:
    """A batch of 100 people who are all misses, with Meta at 300 ms."""
    took, failed = [], []
    with ExitStack() as running:
        meta, ours = alone(running)
        load.prime(ours.port, paths(people(50)))
        for _ in pace.each([None]):
            cold = people(100)
            meta.delay(cold, 0.3)
            wall, [call] = load.burst(ours.port, [batch(cold)])
            body = json.loads(call.received.partition(b"\r\n\r\n")[2] or b"{}")
            took.append(wall)
            failed.append(100 - len(body.get("profiles", [])))
    return [
        milliseconds("a cold batch of 100", took, at_most=800),
        Figure(what="people who are missing in it", samples=failed, exactly=0),
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
        installed = start(
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
        for contender in installed:
            load.prime(contender.port, paths(people(64)))
        for contender in pace.each(installed):
            (igsid,) = people(1)
            meta.delay([igsid], seconds)
            wall, calls_made = load.burst(contender.port, callers * [path(igsid)])
            took.setdefault(contender.name, []).append(wall)
            calls.setdefault(contender.name, []).append(meta.calls(igsid))
            not_ok = sum(call.status != 200 for call in calls_made)
            failed.setdefault(contender.name, []).append(not_ok)
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
    """50 followers of one cold person in the leader's process, and 50 in another."""
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
            meta.delay([igsid], 0.5)
            leader = load.send(leading.port, path(igsid))
            meta.wait_for(1, igsid)
            beside = [load.send(leading.port, path(igsid)) for _ in range(50)]
            elsewhere = [load.send(following.port, path(igsid)) for _ in range(50)]
            load.collect([leader, *beside, *elsewhere])
            near.append(max(call.ended_at for call in beside) - leader.ended_at)
            far.append(max(call.ended_at for call in elsewhere) - leader.ended_at)
            calls.append(meta.calls(igsid))
    return [
        milliseconds("the slowest of 50 after its leader", near, at_most=25),
        milliseconds("the slowest of 50 in another process", far, at_most=60),
        Figure(what="calls to Meta", samples=calls, exactly=1),
    ]
