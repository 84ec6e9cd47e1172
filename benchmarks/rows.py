"""The rows of the table: each a function that starts, asks and gives its figures.

A row's docstring is what ``measure.py --help`` says of it. Rounds alternate between
the contenders, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import contenders
import load
import quiet
from contenders import CORES, LOAD, SERVER, Contender, Meta, Missing
from figures import Figure, milliseconds, ratio

Row = Callable[[], list[Figure]]

ROWS: dict[str, Row] = {}
"""Every row by its name, in the order of the table."""

ROUNDS = 7

STALLED_FOR = 0.5
"""Seconds after which 300 clients have become a stall, and are no longer a burst."""

_numbers = itertools.count()


def row(measure: Row) -> Row:
    ROWS[measure.__name__] = measure
    return measure


def people(count: int) -> list[str]:
    """So many people of whom nobody has asked yet."""
    return [f"1254002{next(_numbers):09d}" for _ in range(count)]


def path(igsid: str) -> str:
    return f"/profiles/{igsid}"


@row
def stampede() -> list[Figure]:
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
        there = _start(
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
            load.prime(contender.port, [path(igsid) for igsid in people(64)])
        for contender in quiet.rounds(ROUNDS * there):
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


@row
def misses() -> list[Figure]:
    """200 distinct misses at once on one core, with Meta at 300 ms."""
    took, failed = [], []
    with ExitStack() as running:
        meta, ours = _alone(running)
        load.prime(ours.port, [path(igsid) for igsid in people(50)])
        for _ in quiet.rounds(range(ROUNDS)):
            cold = people(200)
            meta.hold_back(cold, 0.3)
            wall, asked = load.burst(ours.port, [path(igsid) for igsid in cold])
            took.append(wall)
            failed.append(sum(call.status != 200 for call in asked))
    return [
        milliseconds("200 misses until the last answer", took, at_most=1000),
        Figure(what="failed misses", samples=failed, exactly=0),
    ]


@row
def hits_while_misses_hang() -> list[Figure]:
    """200 hits a second on one core, alone and while 100 misses hang for 2 s."""
    with ExitStack() as running:
        meta, ours = _alone(running)

        def hang() -> Callable[[], None]:
            cold = people(100)
            meta.hold_back(cold, 2.0)
            before = meta.calls()
            calls = [load.send(ours.port, path(igsid)) for igsid in cold]
            meta.wait_for(before + len(calls))
            return lambda: load.collect(calls)

        return _hits_beside(ours, "while 100 misses hang", hang)


@row
def stalled_clients() -> list[Figure]:
    """200 hits a second on one core, alone and beside 300 clients that stall."""
    head = b"GET /profiles/1"
    body = (
        b"POST /admin/flush HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with ExitStack() as running:
        _, ours = _alone(running)

        def stall() -> Callable[[], None]:
            stalling = ExitStack()
            for beginning in [head, body] * 150:
                client = stalling.enter_context(load.connect(ours.port))
                client.sendall(beginning)
            time.sleep(STALLED_FOR)
            return stalling.close

        return _hits_beside(ours, "beside 150 heads and 150 bodies", stall)


@row
def sigterm() -> list[Figure]:
    """SIGTERM with 40 requests in flight and 10 keep-alive clients asking on."""
    finished, lost, gone = [], [], []
    with ExitStack() as running:
        running.enter_context(contenders.pinned(LOAD))
        meta = running.enter_context(contenders.meta())
        store = running.enter_context(contenders.store())
        for _ in quiet.rounds(range(5)):
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


@row
def waiters() -> list[Figure]:
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
            load.prime(contender.port, [path(igsid) for igsid in people(64)])
        for _ in quiet.rounds(range(3 * ROUNDS)):
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


@row
def hits() -> list[Figure]:
    """Hits a second on one core, over 32 keep-alive connections."""
    figures: list[Figure] = []
    reached: dict[str, list[float]] = {}
    with ExitStack() as running:
        running.enter_context(contenders.pinned(LOAD))
        meta = running.enter_context(contenders.meta())
        store = running.enter_context(contenders.store())
        there = _start(
            running,
            figures,
            {
                "profile-proxy": contenders.profile_proxy(meta, store),
                "memoize": contenders.memoize(meta, store),
                "memoize on gunicorn": contenders.memoize_on_gunicorn(meta, store),
            },
        )
        warm = [path(igsid) for igsid in people(500)]
        for contender in there:
            load.prime(contender.port, warm)
        for contender in quiet.rounds(ROUNDS * there):
            rate = load.closed_loop(contender.port, warm, connections=32, seconds=2.0)
            reached.setdefault(contender.name, []).append(rate)
    ours = reached["profile-proxy"]
    for name, rates in reached.items():
        figures.append(Figure(what=f"hits a second, {name}", samples=rates))
        if rates is not ours:
            figures.append(ratio(f"profile-proxy against {name}", ours, rates))
    return figures


def _start(
    running: ExitStack,
    figures: list[Figure],
    wanted: dict[str, AbstractContextManager[Contender]],
) -> list[Contender]:
    """Those that are installed here; *figures* gets a line for each that is not."""
    there = []
    for name, contender in wanted.items():
        try:
            there.append(running.enter_context(contender))
        except Missing as missing:
            figures.append(Figure(what=name, note=str(missing)))
    return there


def _alone(running: ExitStack) -> tuple[Meta, Contender]:
    """One process of ours and its store on one core; load and Meta on the other."""
    running.enter_context(contenders.pinned(LOAD))
    meta = running.enter_context(contenders.meta())
    store = running.enter_context(contenders.store())
    return meta, running.enter_context(contenders.profile_proxy(meta, store))


def _hits_beside(
    ours: Contender, when: str, trouble: Callable[[], Callable[[], None]]
) -> list[Figure]:
    """Hits' median and p99, alone and amid *trouble*, which gives its own end."""
    warm = [path(igsid) for igsid in people(200)]
    load.prime(ours.port, warm)
    alone, amid = [], []
    for _ in quiet.rounds(range(ROUNDS)):
        alone.append(load.open_loop(ours.port, warm, rate=200, seconds=1.4))
        end = trouble()
        try:
            amid.append(load.open_loop(ours.port, warm, rate=200, seconds=1.4))
        finally:
            end()
    return [
        _percentile("p50 of hits, alone", alone, 50),
        _percentile(f"p50 of hits, {when}", amid, 50),
        _percentile("p99 of hits, alone", alone, 99),
        _percentile(f"p99 of hits, {when}", amid, 99, at_most=5),
    ]


def _percentile(
    what: str,
    rounds: Sequence[Sequence[float]],
    percent: float,
    *,
    at_most: float | None = None,
) -> Figure:
    samples = [load.percentile(took, percent) for took in rounds]
    return milliseconds(what, samples, at_most=at_most)


def _stop_under_load(meta: Meta, ours: Contender) -> tuple[int, int, float]:
    """How many of 40 were finished, how many requests lost, and how long it took."""
    warm, cold = people(1), people(40)
    load.prime(ours.port, [path(igsid) for igsid in warm])
    meta.hold_back(cold, 1.5)
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
        ours.process.wait(contenders.ENDS_WITHIN)
        seconds = time.perf_counter() - began_at
        lost = sum(client.result().lost for client in clients)
    return sum(call.status == 200 for call in calls), lost, seconds
