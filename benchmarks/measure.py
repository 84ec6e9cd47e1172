"""The figures of the README: this service beside what most teams write.

    make bench

Both run on granian with one worker, on one core that also carries Valkey; the load and
the simulated Meta are on the other core. Rounds alternate. Only ratios within one run
mean anything.
"""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proxy.cache import engine

BIN = Path(sys.executable).parent
CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, SERVER_CORE = CORES[0], CORES[-1]
PEOPLE, CONNECTIONS, ROUNDS, SECONDS, CALLERS = 500, 32, 5, 2.0, 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def child(command: list[str], **env: str) -> Iterator[subprocess.Popen[str]]:
    """*command*, pinned to the server's core, ended with SIGTERM."""
    process = subprocess.Popen(
        command,
        env=os.environ | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def order(url: str, method: str, path: str, body: object = None) -> dict:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    text = json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read() or b"{}")
    connection.close()
    return dict(answer)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


def hits_per_second(port: int, paths: list[bytes]) -> float:
    """Ask for *paths* in turn over keep-alive connections, one at a time on each."""
    requests = [b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths]
    done, number = 0, 0
    with selectors.DefaultSelector() as ready, ExitStack() as open_ones:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            open_ones.callback(connection.close)
            ready.register(connection, selectors.EVENT_READ, bytearray())
            connection.sendall(requests[number % len(requests)])
            number += 1
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            for event, _ in ready.select(1):
                connection, received = event.fileobj, event.data
                received += connection.recv(65536)
                if not is_complete(received):
                    continue
                received.clear()
                done += 1
                connection.sendall(requests[number % len(requests)])
                number += 1
    return done / SECONDS


def is_complete(answer: bytearray) -> bool:
    """Whether the whole of an answer is here, which must be a profile."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not a hit: {bytes(head)!r}")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
    return bool(blank) and len(body) >= int(length)


def stampede(port: int, meta: str, igsid: str) -> tuple[int, float]:
    """All at once for one cold person: calls to Meta, and the slowest answer."""
    order(meta, "PUT", f"/_sim/people/{igsid}", {"delay": 0.3})
    start = threading.Barrier(CALLERS)

    def ask(_: int) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.connect()
        start.wait()
        began = time.perf_counter()
        connection.request("GET", f"/profiles/{igsid}", headers={"Host": "localhost"})
        connection.getresponse().read()
        connection.close()
        return time.perf_counter() - began

    with ThreadPoolExecutor(CALLERS) as pool:
        slowest = max(pool.map(ask, range(CALLERS)))
    return order(meta, "GET", f"/_sim/calls?igsid={igsid}")["total"], slowest


def main() -> None:
    with ExitStack() as running:
        os.sched_setaffinity(0, {LOAD_CORE})
        meta_process = running.enter_context(
            child(
                [sys.executable, "-m", "proxy.simulator"]
                + ["--listen=127.0.0.1:0", "--token=EAABENCH"]
            )
        )
        assert meta_process.stdout
        meta = json.loads(meta_process.stdout.readline())["url"]
        os.sched_setaffinity(0, {SERVER_CORE})
        store = running.enter_context(engine.start())
        ours, usual = free_port(), free_port()
        running.enter_context(
            child(
                [str(BIN / "profile-proxy"), "run"],
                PROXY_PAGE_TOKEN="EAABENCH",
                PROXY_GRAPH_URL=meta,
                PROXY_STORE_URL=store.url,
                PROXY_LISTEN=f"127.0.0.1:{ours}",
                PROXY_WORKERS="1",
            )
        )
        running.enter_context(
            child(
                [str(BIN / "granian"), "--interface", "wsgi", "--port", str(usual)]
                + ["--blocking-threads", "512", "--backpressure", "4096"]
                + ["--working-dir", str(Path(__file__).parent), "usual:app"],
                STORE_URL=store.url,
                GRAPH_URL=meta,
            )
        )
        os.sched_setaffinity(0, {LOAD_CORE})
        contenders = {"profile-proxy": ours, "memoize": usual}
        for port in contenders.values():
            wait_for(port)
        report(contenders, meta)


def report(contenders: dict[str, int], meta: str) -> None:
    paths = [b"/profiles/1254002%09d" % n for n in range(PEOPLE)]
    for port in contenders.values():
        for path in paths:
            order(f"http://127.0.0.1:{port}", "GET", path.decode())
    rounds = [
        {name: hits_per_second(port, paths) for name, port in contenders.items()}
        for _ in range(ROUNDS)
    ]
    ratios = [r["profile-proxy"] / r["memoize"] for r in rounds]
    print(f"\n| | {' | '.join(contenders)} | ratio, min to max |\n|---|---|---|---|")
    medians = [statistics.median(r[name] for r in rounds) for name in contenders]
    print(
        f"| hits a second, one core | {medians[0]:,.0f} | {medians[1]:,.0f} |"
        f" {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f} |"
    )
    cold = [
        stampede(port, meta, f"125400299900{n:04d}")
        for n, port in enumerate(contenders.values())
    ]
    calls = " | ".join(str(number) for number, _ in cold)
    waits = " | ".join(f"{1000 * slowest:,.0f} ms" for _, slowest in cold)
    print(f"| calls to Meta for {CALLERS} callers of a cold person | {calls} | |")
    print(f"| the slowest of them, with Meta at 300 ms | {waits} | |")


if __name__ == "__main__":
    main()
