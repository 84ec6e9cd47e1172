"""A store without memory for more: it refuses to write, or drops what is used least."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis

from tests.helpers.processes import (
    ADA,
    BEN,
    CLEO,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    crowd,
    empty,
)
from tests.helpers.redis_servers import Server, client_of

PEOPLE = 300
"""Who are asked for while the store drops entries."""

ROOM_BYTES = 2_000_000

OTHERS = 6000
"""Entries of another Page, from elsewhere, that fill the store meanwhile."""


@pytest.fixture(scope="module")
def running() -> Iterator[SimpleNamespace]:
    with Server("tcp") as store:
        meta = SimulatedMeta()
        service = Service(
            PAGE_TOKEN=PAGE_TOKEN,
            GRAPH_URL=meta.url,
            STORE_URL=store.url,
            WORKERS="1",
            MISSES_PER_MINUTE="0",
        )
        with client_of(store.url) as client:
            yield SimpleNamespace(service=service, meta=meta, redis=client)
        service.stop()
        meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """With memory enough until a test takes it away."""
    running.redis.config_set("maxmemory", 0)
    empty(running.redis, running.service)
    running.redis.config_resetstat()
    running.meta.order("reset")
    yield running
    running.redis.config_set("maxmemory", 0)


def allow_little(client: redis.Redis) -> None:
    """Leave room for some hundreds of entries, beside what connections need."""
    client.config_set("maxmemory-policy", "allkeys-lfu")
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used + ROOM_BYTES)


def test_a_store_that_refuses_to_write_costs_nobody_the_answer(stack) -> None:
    """What is stored is served; who is not is asked about, and said not to be kept."""
    stack.service.get(f"/profiles/{ADA}")
    stack.redis.config_set("maxmemory-policy", "noeviction")
    stack.redis.config_set("maxmemory", 1)

    hit = stack.service.get(f"/profiles/{ADA}")
    misses = [stack.service.get(f"/profiles/{igsid}") for igsid in (BEN, BEN, CLEO)]

    assert hit.headers["Cache-Status"].startswith("profile-proxy; hit")
    assert [miss.status_code for miss in misses] == [403, 403, 404]
    for miss in misses:
        assert "stored" not in miss.headers["Cache-Status"]
    assert stack.service.get("/readyz").status_code == 200
    assert stack.meta.calls(BEN) == 2


def test_an_erasure_in_a_full_store_is_kept(stack) -> None:
    """It needs no memory; and what is gone is not answered again."""
    stack.meta.person(ADA, profile={"name": "Before"})
    stack.service.get(f"/profiles/{ADA}")
    stack.redis.config_set("maxmemory-policy", "noeviction")
    stack.redis.config_set("maxmemory", 1)

    erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}")
    stack.meta.person(ADA, profile={"name": "After"})
    after = stack.service.get(f"/profiles/{ADA}")
    flushed = stack.service.request("POST", "/admin/flush", json={"what": "all"})

    assert erased.status_code == 200
    assert erased.json()["was_there"]["entry"] is True
    assert after.json()["name"] == "After"
    assert flushed.status_code == 200
    assert not stack.redis.keys("pp:[eln]:*")


def test_a_store_with_memory_again_is_used_again(stack) -> None:
    """By the next request."""
    stack.redis.config_set("maxmemory-policy", "noeviction")
    stack.redis.config_set("maxmemory", 1)
    stack.service.get(f"/profiles/{ADA}")

    stack.redis.config_set("maxmemory", 0)

    for kind in ("fwd=uri-miss; stored", "hit; ttl="):
        said = stack.service.get(f"/profiles/{ADA}").headers["Cache-Status"]
        assert said.startswith(f"profile-proxy; {kind}")


def test_a_store_that_drops_entries_costs_nobody_the_answer(stack) -> None:
    """All are answered by one call each, and who was dropped is asked about again."""
    stack.service.get(f"/profiles/{ADA}")
    entry = stack.redis.get(f"pp:e:{{default:{ADA}}}")
    allow_little(stack.redis)
    for n in range(OTHERS):
        stack.redis.set(f"pp:e:{{elsewhere:{n}}}", entry, ex=3600)
    dropped_by_then = stack.redis.info("stats")["evicted_keys"]

    with ThreadPoolExecutor(8) as pool:
        paths = [f"/profiles/{crowd(n)}" for n in range(PEOPLE)]
        answers = list(pool.map(stack.service.get, paths))

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Cache-Status"] for answer in answers} == {
        "profile-proxy; fwd=uri-miss; stored"
    }
    assert 0 < dropped_by_then < stack.redis.info("stats")["evicted_keys"]
    # A lease can be dropped too, and then its person is asked about once more.
    assert 0 <= stack.meta.overview()["total"] - (1 + PEOPLE) <= PEOPLE // 20


def test_a_closed_gate_outlives_thousands_of_entries(stack) -> None:
    """It is looked at with each miss, and so is not among what is used least."""
    stack.service.get(f"/profiles/{ADA}")
    entry = stack.redis.get(f"pp:e:{{default:{ADA}}}")
    stack.meta.order("throttle", code=4, minutes=10)
    stack.service.get(f"/profiles/{crowd(0)}")
    allow_little(stack.redis)

    codes = set()
    for n in range(OTHERS):
        stack.redis.set(f"pp:e:{{elsewhere:{n}}}", entry, ex=3600)
        if n % 100 == 0:
            path = f"/profiles/{crowd(1 + n)}"
            codes.add(stack.service.get(path).json()["code"])

    assert codes == {"throttled"}
    assert stack.redis.info("stats")["evicted_keys"] > OTHERS / 3
    assert stack.meta.overview()["total"] == 2
