"""The row of a flush, and of hits while it runs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import unquote, urlsplit

from benchmarks import contenders, load, stored
from benchmarks.children import CORES, Failed
from benchmarks.figures import Figure, milliseconds
from benchmarks.rounds import Pace, paths, people

ENTRIES = 1_000_000
ROOM_BYTES = 4 * 1024**3
RATE = 200.0
CALM_FOR = 2.0

ORDER = b'{"what": "all"}'


def flush(pace: Pace) -> list[Figure]:
    """A flush of 1,000,000 entries, and the hits and replies of Redis meanwhile."""
    took: list[float] = []
    late: dict[str, list[float]] = {}
    with ExitStack() as running:
        meta = running.enter_context(contenders.meta(CORES))
        store = running.enter_context(contenders.store(CORES, room_bytes=ROOM_BYTES))
        ours = running.enter_context(contenders.profile_proxy(meta, store, cores=CORES))
        crowd = people(ENTRIES)
        for _ in pace.each([None]):
            warm = paths(people(50))
            stored.fill(store, stored.alike(crowd))
            load.prime(ours.port, warm)
            streams = _streams(ours.port, warm, store)
            load.open_loops(list(streams.values()), load.after(CALM_FOR))
            _record(late, streams, "before it")
            streams = _streams(ours.port, warm, store)
            with ThreadPoolExecutor(1) as pool:
                flushing = pool.submit(_flush, ours.port)
                load.open_loops(list(streams.values()), flushing.done)
            took.append(flushing.result())
            _record(late, streams, "meanwhile")
    return [
        Figure(what="1,000,000 entries", samples=took, unit="s", at_most=6, aim=5),
        *(
            milliseconds(what, samples, at_most=10 if "meanwhile" in what else None)
            for what, samples in late.items()
        ),
    ]


def _flush(port: int) -> float:
    """Flush all entries; return the seconds from the request to its answer."""
    order = load.head(
        "POST",
        "/admin/flush",
        "Content-Type: application/json",
        f"Content-Length: {len(ORDER)}",
    )
    call = load.Call(load.connect(port), time.perf_counter())
    call.connection.sendall(order + ORDER)
    load.collect([call], within=300)
    if call.status != 200 or _deleted(call.received) < ENTRIES:
        raise Failed(f"not flushed: {bytes(call.received[:300])!r}")
    return call.ended_at - call.began_at


def _deleted(answer: bytearray) -> int:
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["deleted"])


def _streams(port: int, warm: Sequence[str], store_url: str) -> dict[str, load.Stream]:
    """Return a stream of hits, and one of commands to the engine itself."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(load.WITHIN)
        connection.connect(unquote(urlsplit(store_url).path))
        return connection

    return {
        "hit": load.hits(port, warm, rate=RATE, only=False),
        "reply of Redis": load.Stream(
            connect,
            [b"*2\r\n$3\r\nGET\r\n$6\r\nperson\r\n"],
            RATE,
            lambda received: received.endswith(b"\r\n"),
            lambda received: received == b"$-1\r\n",
        ),
    }


def _record(
    late: dict[str, list[float]], streams: dict[str, load.Stream], when: str
) -> None:
    for what, stream in streams.items():
        if not stream.took:
            raise Failed(f"no {what} at all {when}")
        late.setdefault(f"the slowest {what} {when}", []).append(max(stream.took))
