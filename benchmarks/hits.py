"""Rows of hits a second: of all kinds, and beside other caches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from benchmarks import contenders, load, stored, wrk
from benchmarks.children import CORES, LOAD, Contender, Failed, pinned
from benchmarks.contenders import Meta
from benchmarks.figures import Figure, ratio
from benchmarks.rounds import Pace, alone, batch, paths, people, start

OURS, NEAR_OFF = "profile-proxy", "profile-proxy, near cache off"
NGINX, OPEN_FILES = "nginx", "nginx with open_file_cache"
VARNISH = "varnish"
MEMOIZE, CACHE_GET = "memoize on gunicorn", "cache.get on gunicorn"
REQUESTS_CACHE = "requests-cache on gunicorn"

BOUNDS: dict[str, tuple[float, float] | None] = {
    NGINX: (1.0, 1.25),
    OPEN_FILES: (0.75, 0.95),
    VARNISH: (1.1, 1.4),
    MEMOIZE: (25, 35),
    CACHE_GET: (18, 25),
    REQUESTS_CACHE: None,
}
"""The contenders of our hits: the least ratio that is required, and the aim."""

QUICK_CONTENDERS = (OURS, NEAR_OFF, NGINX, VARNISH, MEMOIZE)
"""The contenders of a quick run."""

Rates = dict[str, list[float]]


def hits(pace: Pace) -> list[Figure]:
    """Hits a second on one core, with and without the near cache, beside six others."""
    wrk.check()
    figures: list[Figure] = []
    with ExitStack() as running:
        running.enter_context(pinned(LOAD))
        meta = running.enter_context(contenders.meta())
        store, theirs = (running.enter_context(contenders.store()) for _ in range(2))
        wanted = {
            OURS: contenders.profile_proxy(meta, store),
            NEAR_OFF: contenders.profile_proxy(
                meta, store, name=NEAR_OFF, near_entries=0
            ),
            NGINX: contenders.nginx(meta),
            OPEN_FILES: contenders.nginx(meta, name=OPEN_FILES, open_file_cache=True),
            VARNISH: contenders.varnish(meta),
            MEMOIZE: contenders.on_gunicorn("memoize", MEMOIZE, meta, theirs),
            CACHE_GET: contenders.on_gunicorn("cache_get", CACHE_GET, meta, theirs),
            REQUESTS_CACHE: contenders.on_gunicorn(
                "requests_cache", REQUESTS_CACHE, meta, theirs
            ),
        }
        if pace.is_brief:
            wanted = {name: wanted[name] for name in QUICK_CONTENDERS}
        installed = start(running, figures, wanted)
        warm = paths(people(pace.people))
        for contender in installed:
            _warm_up(contender.port, warm)
        rates = _in_turn(pace, meta, installed, warm)
    return figures + _compared(rates)


def _warm_up(port: int, warm: list[str], status: int = 200) -> None:
    """Store all of *warm* in the cache; the second time stores what failed at first.

    One is requested alone: memoize loses results while it sets its version.
    """
    for part in (warm[:1], warm, warm):
        load.prime(port, part, status=status)


def _in_turn(
    pace: Pace, meta: Meta, installed: list[Contender], order: list[str]
) -> Rates:
    """Measure each contender's rate, round by round."""
    reached: Rates = {contender.name: [] for contender in installed}
    for contender in pace.each(installed):
        with _only_hits(meta, contender.name):
            rate = wrk.rate(contender.port, order, seconds=pace.seconds)
        reached[contender.name].append(rate)
    return reached


@contextmanager
def _only_hits(meta: Meta, name: str) -> Iterator[None]:
    """Check that all requests in this context succeed, without a call to Meta.

    Raises:
        Failed: one did not; the text contains *name*.
    """
    before = meta.calls()
    try:
        yield
    except Failed as failed:
        raise Failed(f"{name}: {failed}") from None
    if calls := meta.calls() - before:
        raise Failed(f"{name}: {calls} were not hits, because Meta was called")


def _compared(rates: Rates) -> list[Figure]:
    figures = [
        Figure(what=f"hits a second, {name}", samples=samples, plotted_as=name)
        for name, samples in rates.items()
    ]
    ours = rates[OURS]
    for name, bounds in BOUNDS.items():
        if name in rates:
            must, aim = bounds or (None, None)
            what = f"{OURS} against {name}"
            figures.append(ratio(what, ours, rates[name], at_least=must, aim=aim))
    if MEMOIZE in rates:
        what, ours = f"{NEAR_OFF}, against {MEMOIZE}", rates[NEAR_OFF]
        figures.append(ratio(what, ours, rates[MEMOIZE], at_least=10, aim=14))
    return figures


def refusals(pace: Pace) -> list[Figure]:
    """Stored refusals a second, 403 and 404, against hits on profiles."""
    wrk.check()
    refused = {403: 230, 404: 9010}
    with ExitStack() as running:
        meta, ours = alone(running)
        orders = {200: paths(people(pace.people))}
        _warm_up(ours.port, orders[200])
        for status, code in refused.items():
            refusing = people(pace.people)
            meta.refuse(refusing, code)
            orders[status] = paths(refusing)
            _warm_up(ours.port, orders[status], status)
        rates: dict[int, list[float]] = {status: [] for status in orders}
        for status in pace.each(list(orders)):
            order, seconds = orders[status], pace.seconds
            with _only_hits(meta, str(status)):
                rate = wrk.rate(ours.port, order, seconds=seconds, status=status)
            rates[status].append(rate)
    return [
        *(
            Figure(what=f"answers a second, {status}", samples=samples)
            for status, samples in rates.items()
        ),
        *(
            ratio(
                f"{status} against 200", rates[status], rates[200], at_least=0.9, aim=1
            )
            for status in refused
        ),
    ]


def batches(pace: Pace) -> list[Figure]:
    """People a second in warm batches of 50, against single hits."""
    wrk.check()
    with ExitStack() as running:
        meta, ours = alone(running)
        crowd = people(pace.people)
        of_fifty = [batch(crowd[n : n + 50]) for n in range(0, len(crowd), 50)]
        orders = {1: paths(crowd), 50: of_fifty}
        for order in orders.values():
            _warm_up(ours.port, order)
        rates: dict[int, list[float]] = {size: [] for size in orders}
        for size in pace.each(list(orders)):
            with _only_hits(meta, f"batches of {size}"):
                rate = wrk.rate(ours.port, orders[size], seconds=pace.seconds)
            rates[size].append(size * rate)
    return [
        Figure(what="people a second, one at a time", samples=rates[1]),
        Figure(what="people a second, 50 in a batch", samples=rates[50]),
        ratio("50 in a batch against one", rates[50], rates[1], at_least=2, aim=5),
    ]


def pictures(pace: Pace) -> list[Figure]:
    """Redirects to pictures a second, against hits on profiles."""
    wrk.check()
    with ExitStack() as running:
        meta, ours = alone(running)
        warm = paths(people(pace.people))
        orders = {200: warm, 302: [f"{path}/picture" for path in warm]}
        rates: dict[int, list[float]] = {status: [] for status in orders}
        for status, order in orders.items():
            _warm_up(ours.port, order, status)
        for status in pace.each(list(orders)):
            order, seconds = orders[status], pace.seconds
            with _only_hits(meta, str(status)):
                rate = wrk.rate(ours.port, order, seconds=seconds, status=status)
            rates[status].append(rate)
    return [
        Figure(what="profiles a second", samples=rates[200]),
        Figure(what="redirects a second", samples=rates[302]),
        ratio("redirects against profiles", rates[302], rates[200], at_least=0.5),
    ]


def zipf(pace: Pace) -> list[Figure]:
    """Hits a second on 50,000 people in a Zipf distribution, beside Varnish."""
    wrk.check()
    figures: list[Figure] = []
    with ExitStack() as running:
        running.enter_context(pinned(LOAD))
        meta = running.enter_context(contenders.meta())
        store = running.enter_context(contenders.store())
        installed = start(
            running,
            figures,
            {
                OURS: contenders.profile_proxy(meta, store),
                VARNISH: contenders.varnish(meta),
            },
        )
        crowd = people(50_000)
        stored.fill(store, stored.entries(crowd))
        warm = paths(crowd)
        with _only_hits(meta, OURS):
            load.prime(installed[0].port, warm)
        for contender in installed[1:]:
            load.prime(contender.port, warm)
        rates = _in_turn(pace, meta, installed, wrk.zipf(warm, seed=1))
    figures += [
        Figure(what=f"hits a second, {name}", samples=samples)
        for name, samples in rates.items()
    ]
    if VARNISH in rates:
        what = f"{OURS} against varnish"
        ours, theirs = rates[OURS], rates[VARNISH]
        figures.append(ratio(what, ours, theirs, at_least=1, aim=1.25))
    return figures


def two_workers(pace: Pace) -> list[Figure]:
    """Hits a second of 2 workers on 2 cores against 1 on one, with twice the load."""
    wrk.check()
    reached: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        warm = paths(people(pace.people))
        installed = {}
        for workers in reached:
            cores = CORES[-workers:]
            store = running.enter_context(contenders.store(cores))
            installed[workers] = running.enter_context(
                contenders.profile_proxy(meta, store, workers=workers, cores=cores)
            )
            _warm_up(installed[workers].port, warm)
        for workers in pace.each([1, 2]):
            cores, port = CORES[-workers:], installed[workers].port
            with _only_hits(meta, f"{workers} workers"):
                reached[workers].append(_from_each(cores, port, warm, pace))
    return [
        Figure(what="hits a second, 1 worker", samples=reached[1]),
        Figure(what="hits a second, 2 workers", samples=reached[2]),
        ratio("2 workers against 1", reached[2], reached[1], at_least=1.7, aim=1.9),
    ]


def _from_each(cores: list[int], port: int, warm: list[str], pace: Pace) -> float:
    """Return the sum of hits a second of one ``wrk`` on each of *cores*."""

    def from_one(core: int) -> float:
        with pinned([core]):  # Pins the thread, and so the wrk that it starts.
            return wrk.rate(port, warm, seconds=pace.seconds)

    with ThreadPoolExecutor(len(cores)) as pool:
        return sum(pool.map(from_one, cores))
