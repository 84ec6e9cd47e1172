"""The counts of several workers are one sum, whichever is scraped or killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    crowd,
    wait_until,
)
from tests.helpers.prometheus import total

WORKER = """
import json, sys
from types import SimpleNamespace
from proxy.observability.metrics import Metrics
from proxy.observability.multiprocess import share

if len(sys.argv) > 1:
    share(sys.argv[1])
metrics = Metrics()
page = metrics.of_page("default")
near = metrics.near = SimpleNamespace(
    hits=0, misses=0, bypassed=0, invalidated=0, evicted=0, size=0, is_trusted=False
)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    page.answers["near", "profile"] += order.get("near", 0)
    near.size = order.get("entries", near.size)
    near.is_trusted = order.get("trusted", near.is_trusted)
    metrics.fold()
    print(json.dumps(metrics.exposition(None).decode()), flush=True)
"""


FOLDING = """
import os, sys, threading

def folding():
    return sum("_fold_for_ever" in thread.name for thread in threading.enumerate())
"""
"""A function for a script: how many threads fold in its process."""

FOREIGN_SERVER = (
    FOLDING
    + """
from proxy.app import create_app

app = create_app()
counts = [folding()]
for _ in range(2):
    app.test_client().get("/healthz")
    counts.append(folding())
print(counts)
"""
)

OWN_SERVER = (
    FOLDING
    + """
from proxy.live_files import read_settings
from proxy.server.phase import SharedPhase
from proxy.server.worker import load_worker

load_worker(read_settings(os.environ), SharedPhase(), os.getppid(), sys.argv[1], [], 0)
print(folding())
"""
)


class Worker:
    """A process that counts by order, and is killed at the end of its ``with``."""

    def __init__(self, *folder: Path, **env: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, folder)],
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def counts(self, **order: int) -> str:
        """Count *order*, and return the text of a scrape of this process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline()))

    def kill(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def test_scrape_of_one_worker_is_the_sum_of_all(tmp_path) -> None:
    """Counts and entries are added up; trusted is 1 only if it is 1 in all."""
    with Worker(tmp_path) as one, Worker(tmp_path) as other:
        one.counts(near=3, entries=10, trusted=True)
        text = other.counts(near=4, entries=5, trusted=False)
        trusted = total(other.counts(trusted=True), "near_trusted")

        assert total(text, "answers_total", source="near") == 7
        assert total(text, "near_entries") == 15
        assert (total(text, "near_trusted"), trusted) == (0, 1)


def test_successor_continues_the_counts_of_a_dead_worker(tmp_path) -> None:
    """Counters never go back; the dead worker's gauges are gone."""
    with Worker(tmp_path) as survivor, Worker(tmp_path) as victim:
        survivor.counts(near=1, entries=10, trusted=True)
        victim.counts(near=5, entries=7, trusted=False)
        victim.kill()
        after_death = survivor.counts()
        with Worker(tmp_path) as successor:
            begun = survivor.counts()
            text = successor.counts(near=2, entries=1, trusted=True)

            assert total(after_death, "answers_total", source="near") == 6
            assert total(text, "answers_total", source="near") == 8
            assert total(begun, "near_entries") == 10
            assert total(text, "near_entries") == 11
            assert total(text, "near_trusted") == 1


def test_dead_workers_leave_no_files_behind(tmp_path) -> None:
    """However many: each successor takes the slot of one before it."""
    left = []
    for _ in range(3):
        with Worker(tmp_path) as worker:
            text = worker.counts(near=1)
        left.append(sorted(tmp_path.iterdir()))

    assert left[0] == left[1] == left[2]
    assert total(text, "answers_total", source="near") == 3


def test_empty_file_of_a_starting_worker_breaks_no_scrape(tmp_path) -> None:
    """A worker that was killed at that moment leaves an empty file, too."""
    (tmp_path / "counter_7.db").touch()

    with Worker(tmp_path) as worker:
        assert total(worker.counts(near=3), "answers_total", source="near") == 3


def test_folder_of_the_librarys_variable_is_used_without_share(tmp_path) -> None:
    """As under gunicorn, whose workers take no slot of ours."""
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    with Worker(**env) as one, Worker(**env) as other:
        one.counts(near=3)
        text = other.counts(near=4)

    assert total(text, "answers_total", source="near") == 7


def run(script: str, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | env | {"PROXY_PAGE_TOKEN": PAGE_TOKEN},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_folding_starts_with_the_first_request_under_another_server(tmp_path) -> None:
    """Not with the app, which may be made before the server forks; and only once."""
    counts = run(FOREIGN_SERVER, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))

    assert counts == "[0, 1, 1]"


def test_folding_starts_before_the_first_request_in_our_worker(tmp_path) -> None:
    """A worker without requests would otherwise be missing from the sums."""
    assert run(OWN_SERVER, str(tmp_path)) == "1"


@pytest.fixture
def service() -> Iterator[SimpleNamespace]:
    """A service of two workers; ``folder`` is where they sum their counts."""
    with ExitStack() as ending:
        store = ending.enter_context(engine.start())
        meta = SimulatedMeta()
        ending.callback(meta.close)
        service = Service(
            PAGE_TOKEN=PAGE_TOKEN,
            GRAPH_URL=meta.url,
            STORE_URL=store.url,
            WORKERS="2",
        )
        ending.callback(service.stop)
        wait_until(lambda: len(folders(service)) == 2, 10, "both workers count")
        yield SimpleNamespace(
            run=service, folder=folders(service)[service.workers()[0]]
        )


def folders(service: Service) -> dict[int, Path]:
    """The folder of each worker, by its id; one that ends meanwhile is left out."""
    found = {}
    for worker in service.workers():
        try:
            maps = Path(f"/proc/{worker}/maps").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if counted_in := re.search(r"(/\S+)/counter_\d+\.db", maps):
            found[worker] = Path(counted_in[1])
    return found


def ask(service: Service, path: str) -> str:
    """Send a request over a new connection, which either worker may take."""
    answer = requests.get(service.url + path, timeout=10)
    assert answer.ok, answer.text
    return answer.text


def answers(service: Service) -> bool:
    try:
        return bool(ask(service, "/healthz"))
    except requests.ConnectionError:
        return False


def counted(service: Service) -> float | None:
    """The answers counted, over a kept connection, so always by the same worker."""
    return total(service.get("/metrics").text, "answers_total")


def test_requests_of_two_workers_are_summed_exactly(service) -> None:
    """No request is lost or counted twice, whichever worker is scraped."""
    for number in range(20):
        ask(service.run, f"/profiles/{crowd(number)}")
    for _ in range(100):
        ask(service.run, f"/profiles/{ADA}")

    wait_until(lambda: counted(service.run) == 120, 10, "the other has folded")
    scrapes = [ask(service.run, "/metrics") for _ in range(10)]

    stats = json.loads(ask(service.run, "/admin/stats"))["instance"]
    assert (stats["outcomes"]["profile"], stats["calls"]) == (120, 21)
    assert (stats["calls_saved"], stats["hit_ratio"]) == (99, round(99 / 120, 4))
    for text in scrapes:
        assert total(text, "answers_total") == 120
        assert total(text, "answers_total", source="fetched") == 21
        hits = [total(text, "answers_total", source=each) for each in ("near", "hit")]
        assert sum(filter(None, hits)) == 99
        assert total(text, "graph_calls_total", result="profile") == 21
        assert total(text, "graph_call_seconds_count") == 21
        assert total(text, "graph_version_info", version="v25.0") == 1


def test_counts_outlive_their_workers(service) -> None:
    """Both are killed; their successors continue in the same files."""
    for _ in range(40):
        ask(service.run, f"/profiles/{ADA}")
    wait_until(lambda: counted(service.run) == 40, 10, "the other has folded")
    files = sorted(service.folder.glob("counter_*"))
    killed = service.run.workers()

    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    wait_until(
        lambda: len(set(folders(service.run)) - set(killed)) == 2, 10, "two new ones"
    )
    wait_until(lambda: answers(service.run), 10, "they answer")

    assert total(ask(service.run, "/metrics"), "answers_total") == 40
    ask(service.run, f"/profiles/{ADA}")
    wait_until(lambda: counted(service.run) == 41, 10, "the successor has folded")
    assert sorted(service.folder.glob("counter_*")) == files


def test_stop_removes_the_folder_of_counts(service) -> None:
    """The parent removes it."""
    assert service.folder.is_dir()

    service.run.stop()

    assert not service.folder.exists()


def test_workers_remove_the_folder_of_a_killed_parent(service) -> None:
    """They notice that the parent is gone, and end."""
    os.kill(service.run.process.pid, signal.SIGKILL)
    service.run.process.wait(5)

    wait_until(lambda: not service.folder.exists(), 5, "the folder is gone")
