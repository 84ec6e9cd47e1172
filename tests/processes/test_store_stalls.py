"""The store hangs (SIGSTOP) at each step of a miss, and goes on later."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from tests.helpers.processes import (
    ADA,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    crowd,
    empty,
    open_gates,
    wait_until,
)
from tests.helpers.redis_servers import Server, client_of
from tests.helpers.tcp_relay import Relay

GRAPH_TIMEOUT = 1.5
LONGEST_WAIT = 2 * GRAPH_TIMEOUT + 2
CALLERS = 5
"""Of each instance."""

ENTRY, LEASE, GATE = (b"pp:e:{default:%s}" % ADA.encode(), b"pp:l:{", b"pp:g:{")
STEPS = {
    "the look": (b"MGET", ENTRY, 1),
    "the take": (b"EVALSHA", LEASE, 1),
    "the gate": (b"EVALSHA", GATE, 1),
    "the report": (b"EVALSHA", GATE, 2),
    "the put": (b"EVALSHA", LEASE, 2),
}
"""What a miss sends to the store, and which of those commands it is."""


@pytest.fixture(scope="module")
def running() -> Iterator[SimpleNamespace]:
    """One instance behind the relay, another with a way of its own to the store."""
    policy = {"maxmemory-policy": "allkeys-lfu"}
    with Server("tcp", settings=policy) as store, Relay(store.port) as relay:
        meta = SimulatedMeta()
        settings = {
            "PAGE_TOKEN": PAGE_TOKEN,
            "GRAPH_URL": meta.url,
            "GRAPH_TIMEOUT": f"{GRAPH_TIMEOUT}s",
            "WORKERS": "1",
        }
        one = Service(**settings, STORE_URL=relay.url)
        other = Service(**settings, STORE_URL=store.url)
        with client_of(store.url) as client:
            yield SimpleNamespace(
                store=store, relay=relay, meta=meta, one=one, other=other, redis=client
            )
        one.stop()
        other.stop()
        meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """An empty store that knows our scripts already, and a Meta asked nothing yet."""
    empty(running.redis, running.one, running.other)
    for n, service in enumerate((running.one, running.other)):
        service.get(f"/profiles/{crowd(n)}")
    running.meta.order("reset")
    yield running
    running.store.resume()


def ask(
    pool: ThreadPoolExecutor, service: Service, times: int = CALLERS
) -> list[Future[requests.Response]]:
    return [pool.submit(service.get, f"/profiles/{ADA}") for _ in range(times)]


def assert_answered(callers: list[Future[requests.Response]]) -> None:
    """All of them, in time, and with the same person."""
    answers = [caller.result() for caller in callers]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["name"] for answer in answers} == {"Ada"}
    assert max(answer.elapsed.total_seconds() for answer in answers) < LONGEST_WAIT


def assert_all_is_well(stack: SimpleNamespace, *, calls: int) -> None:
    """Soon everybody is answered from the store again, and what is erased is gone.

    A store that has hung is tried again once a second. What it had not read when it
    hung, it does now: the lease of a caller who has long been answered without it may
    have to lapse first.
    """
    for service in (stack.one, stack.other):
        wait_until(lambda s=service: _is_well(s), 1.5, "the store is tried again")
    with ThreadPoolExecutor(2) as pool:
        assert_answered(ask(pool, stack.one, 1) + ask(pool, stack.other, 1))
    for service in (stack.one, stack.other):
        assert _is_well(service)
        hit = service.get(f"/profiles/{ADA}").headers["Cache-Status"]
        assert hit.startswith("profile-proxy; hit")
    assert stack.meta.calls(ADA) <= calls

    stack.meta.person(ADA, profile={"name": "Later"})
    assert stack.one.request("DELETE", f"/admin/profiles/{ADA}").ok
    names = {s.get(f"/profiles/{ADA}").json()["name"] for s in (stack.one, stack.other)}
    assert names == {"Later"}


def _is_well(service: Service) -> bool:
    return bool(service.get("/readyz").json()["status"] == "ok")


@pytest.mark.parametrize("step", STEPS)
def test_a_store_that_hangs_at_a_step_costs_nobody_the_answer(stack, step) -> None:
    """It is stopped just before the step's command reaches it.

    Once by whoever has the lease, and once by each instance without the store: no
    more calls than that; and one when it is back, if nothing could be stored.
    """
    stack.meta.person(ADA, profile={"name": "Ada"}, delay=0.5)
    stack.relay.before(*STEPS[step], stack.store.pause)

    with ThreadPoolExecutor(2 * CALLERS) as pool:
        callers = ask(pool, stack.one)
        assert stack.relay.acted.wait(10), f"nobody came to {step}"
        callers += ask(pool, stack.other)
        assert_answered(callers)
    meanwhile = stack.meta.calls(ADA)
    stack.store.resume()

    assert meanwhile <= 1 + 2
    assert_all_is_well(stack, calls=meanwhile + 1)


def test_a_store_that_hangs_during_the_call_costs_nobody_the_answer(stack) -> None:
    """The leader's own followers get its answer; the other instance asks for itself."""
    stack.meta.person(ADA, profile={"name": "Ada"}, wire="hang", times=1)

    with ThreadPoolExecutor(2 * CALLERS) as pool:
        callers = ask(pool, stack.one)
        stack.meta.await_calls(ADA)
        callers += ask(pool, stack.other)
        stack.store.pause()
        stack.meta.person(ADA, profile={"name": "Ada"}, delay=0.5)
        stack.meta.await_calls(ADA, 2)
        stack.meta.order("release")
        assert_answered(callers)
    meanwhile = stack.meta.calls(ADA)
    stack.store.resume()

    assert meanwhile <= 1 + 2
    assert_all_is_well(stack, calls=meanwhile + 1)


def test_a_store_that_hangs_and_a_meta_that_hangs_keep_nobody_longer(stack) -> None:
    """Both at once are the longest wait; then it is said who did not answer."""
    stack.meta.person(ADA, wire="hang")
    stack.relay.before(*STEPS["the take"], stack.store.pause)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = ask(pool, stack.one)
        answers = [caller.result() for caller in callers]
    stack.store.resume()
    stack.meta.person(ADA, profile={"name": "Ada"})
    stack.meta.order("release")
    open_gates(stack.redis)

    assert {answer.json()["code"] for answer in answers} == {"graph_timeout"}
    assert max(a.elapsed.total_seconds() for a in answers) < LONGEST_WAIT
    assert stack.meta.calls(ADA) == 1
    wait_until(
        lambda: not stack.redis.exists(f"pp:l:{{default:{ADA}}}"), 5, "it lapses"
    )
    assert_all_is_well(stack, calls=2)
