"""A store without free memory: it rejects writes, or evicts the least used keys."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.helpers.processes import (
    ADA,
    BEN,
    CLEO,
    crowd,
)
from tests.helpers.redis_servers import RedisServer
from tests.helpers.stack import Stack, start_stack

PEOPLE = 300
"""People requested while the store evicts entries."""

ROOM_BYTES = 1_700_000
"""Enough for two thirds of OTHERS, also while Redis still frees old query buffers."""

OTHERS = 6000
"""Entries of another Page that fill the store meanwhile."""


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    settings = {"MISSES_PER_MINUTE": "0"}
    with (
        RedisServer("tcp") as store,
        start_stack(store.url, graph_timeout=5.0, settings=settings) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """The stack with enough memory until a test limits it."""
    running.redis.config_set("maxmemory", 0)
    running.reset()
    running.redis.config_resetstat()
    yield running
    running.redis.config_set("maxmemory", 0)


def limit_memory(client: redis.Redis) -> None:
    """Leave memory for some thousands of entries, and for the connections."""
    client.config_set("maxmemory-policy", "allkeys-lfu")
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used + ROOM_BYTES)


def test_store_that_rejects_writes_does_not_cost_an_answer(stack) -> None:
    """Stored people are hits; others are fetched, and not reported as stored."""
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


def test_erase_works_in_a_full_store(stack) -> None:
    """It needs no memory, and the erased entry is not served again."""
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


def test_store_is_used_again_once_it_has_memory(stack) -> None:
    """The next request stores its entry."""
    stack.redis.config_set("maxmemory-policy", "noeviction")
    stack.redis.config_set("maxmemory", 1)
    stack.service.get(f"/profiles/{ADA}")

    stack.redis.config_set("maxmemory", 0)

    for kind in ("fwd=uri-miss; stored", "hit; ttl="):
        status = stack.service.get(f"/profiles/{ADA}").headers["Cache-Status"]
        assert status.startswith(f"profile-proxy; {kind}")


def test_store_that_evicts_entries_does_not_cost_an_answer(stack) -> None:
    """Each person costs one call, and one more if their lease was evicted."""
    stack.service.get(f"/profiles/{ADA}")
    entry = stack.redis.get(f"pp:e:{{default:{ADA}}}")
    limit_memory(stack.redis)
    for n in range(OTHERS):
        stack.redis.set(f"pp:e:{{elsewhere:{n}}}", entry, ex=3600)
    evicted_before = stack.redis.info("stats")["evicted_keys"]

    with ThreadPoolExecutor(8) as pool:
        paths = [f"/profiles/{crowd(n)}" for n in range(PEOPLE)]
        answers = list(pool.map(stack.service.get, paths))

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Cache-Status"] for answer in answers} == {
        "profile-proxy; fwd=uri-miss; stored"
    }
    assert 0 < evicted_before < stack.redis.info("stats")["evicted_keys"]
    # A lease can be evicted too, and then its person is fetched once more.
    assert 0 <= stack.meta.overview()["total"] - (1 + PEOPLE) <= PEOPLE // 20


def test_closed_gate_outlives_thousands_of_entries(stack) -> None:
    """Each miss reads it, so it is not among the least used keys."""
    stack.service.get(f"/profiles/{ADA}")
    entry = stack.redis.get(f"pp:e:{{default:{ADA}}}")
    stack.meta.order("throttle", code=4, minutes=10)
    stack.service.get(f"/profiles/{crowd(0)}")
    limit_memory(stack.redis)

    codes = set()
    for n in range(OTHERS):
        stack.redis.set(f"pp:e:{{elsewhere:{n}}}", entry, ex=3600)
        if n % 100 == 0:
            path = f"/profiles/{crowd(1 + n)}"
            codes.add(stack.service.get(path).json()["code"])

    assert codes == {"throttled"}
    assert stack.redis.info("stats")["evicted_keys"] > OTHERS / 3
    assert stack.meta.overview()["total"] == 2
