"""Rows of hits while misses hang or clients stall, and of a service that stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks import contenders, load
from benchmarks.children import CORES, ENDS_WITHIN, LOAD, Contender, pinned
from benchmarks.contenders import Meta
from benchmarks.figures import Figure, milliseconds
from benchmarks.rounds import Pace, alone, path, paths, people

STALLED_FOR = 0.5
"""Seconds after which 300 new clients no longer count as a burst."""


def hits_while_misses_hang(pace: Pace) -> list[Figure]:
    """200 hits a second on one core, alone and while 100 misses hang for 2 s."""
    with ExitStack() as running:
        meta, ours = alone(running)

        def hang() -> Callable[[], None]:
            cold = people(100)
            meta.delay(cold, 2.0)
            before = meta.calls()
            calls = [load.send(ours.port, path(igsid)) for igsid in cold]
            meta.wait_for(before + len(calls))
            return lambda: load.collect(calls)

        return _hits_beside(pace, ours, "while 100 misses hang", hang, aim=2)


def stalled_clients(pace: Pace) -> list[Figure]:
    """200 hits a second on one core, alone and beside 300 clients that stall."""
    head = b"GET /profiles/1"
    body = load.head(
        "POST", "/admin/flush", "Content-Type: application/json", "Content-Length: 100"
    )
    with ExitStack() as running:
        _, ours = alone(running)

        def stall() -> Callable[[], None]:
            stalling = ExitStack()
            for beginning in [head, body + b"{"] * 150:
                client = stalling.enter_context(load.connect(ours.port))
                client.sendall(beginning)
            time.sleep(STALLED_FOR)
            return stalling.close

        return _hits_beside(pace, ours, "beside 150 heads and 150 bodies", stall)


def sigterm(pace: Pace) -> list[Figure]:
    """SIGTERM with 40 requests in flight and 10 keep-alive clients asking on."""
    finished, lost, gone = [], [], []
    with ExitStack() as running:
        running.enter_context(pinned(LOAD))
        meta = running.enter_context(contenders.meta())
        store = running.enter_context(contenders.store())
        for _ in pace.each([None]):
            with contenders.profile_proxy(meta, store, workers=2, cores=CORES) as ours:
                done, missing, seconds = _stop_under_load(meta, ours)
            finished.append(done)
            lost.append(missing)
            gone.append(seconds)
    return [
        Figure(what="of 40 in flight, finished", samples=finished, exactly=40),
        Figure(what="requests of the 10 lost", samples=lost, exactly=0),
        Figure(what="from SIGTERM to the end", samples=gone, unit="s"),
    ]


def _hits_beside(
    pace: Pace,
    ours: Contender,
    when: str,
    trouble: Callable[[], Callable[[], None]],
    *,
    aim: float | None = None,
) -> list[Figure]:
    """Return the p50 and p99 of hits, alone and during *trouble*.

    *trouble* begins it, and returns the function that ends it.
    """
    warm = paths(people(200))
    load.prime(ours.port, warm)
    calm, amid = [], []
    for _ in pace.each([None]):
        calm.append(load.open_loop(ours.port, warm, rate=200, seconds=1.4))
        end = trouble()
        try:
            amid.append(load.open_loop(ours.port, warm, rate=200, seconds=1.4))
        finally:
            end()
    return [
        _percentile("p50 of hits, alone", calm, 50),
        _percentile(f"p50 of hits, {when}", amid, 50),
        _percentile("p99 of hits, alone", calm, 99),
        _percentile(f"p99 of hits, {when}", amid, 99, at_most=5, aim=aim),
    ]


def _percentile(
    what: str,
    rounds: Sequence[Sequence[float]],
    percent: float,
    *,
    at_most: float | None = None,
    aim: float | None = None,
) -> Figure:
    samples = [load.percentile(took, percent) for took in rounds]
    return milliseconds(what, samples, at_most=at_most, aim=aim)


def _stop_under_load(meta: Meta, ours: Contender) -> tuple[int, int, float]:
    """Stop *ours*; return how many of 40 finished, how many were lost, and the time."""
    warm, cold = people(1), people(40)
    load.prime(ours.port, paths(warm))
    meta.delay(cold, 1.5)
    before = meta.calls()
    until = time.perf_counter() + load.WITHIN
    with ThreadPoolExecutor(10) as pool:
        clients = [
            pool.submit(
                load.keep_asking, ours.port, path(warm[0]), every=0.02, until=until
            )
            for _ in range(10)
        ]
        calls = [load.send(ours.port, path(igsid)) for igsid in cold]
        meta.wait_for(before + len(calls))
        began_at = time.perf_counter()
        ours.process.send_signal(signal.SIGTERM)
        load.collect(calls)
        ours.process.wait(ENDS_WITHIN)
        seconds = time.perf_counter() - began_at
        lost = sum(client.result().lost for client in clients)
    return sum(call.status == 200 for call in calls), lost, seconds
