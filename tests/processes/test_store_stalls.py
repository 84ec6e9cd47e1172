"""The store is stopped (SIGSTOP) at each step of a miss, and continues later."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import requests

from tests.helpers.processes import (
    ADA,
    Service,
    crowd,
    open_gates,
    wait_until,
)
from tests.helpers.redis_servers import RedisServer
from tests.helpers.stack import Stack, start_stack
from tests.helpers.tcp_relay import Relay

GRAPH_TIMEOUT = 1.5
LONGEST_WAIT = 2 * GRAPH_TIMEOUT + 2
CALLERS = 5
"""At each service."""

ENTRY, LEASE, GATE = (b"pp:e:{default:%s}" % ADA.encode(), b"pp:l:{", b"pp:g:{")
STEPS = {
    "read": (b"MGET", ENTRY, 1),
    "take the lease": (b"EVALSHA", LEASE, 1),
    "acquire": (b"EVALSHA", GATE, 1),
    "report to the gate": (b"EVALSHA", GATE, 2),
    "put": (b"EVALSHA", LEASE, 2),
}
"""The commands of a miss: each one's name, its key, and its turn among equal ones."""


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    with RedisServer("tcp", settings={"maxmemory-policy": "allkeys-lfu"}) as store:
        yield store


@pytest.fixture(scope="module")
def relay(store: RedisServer) -> Iterator[Relay]:
    with Relay(store.port) as relay:
        yield relay


@pytest.fixture(scope="module")
def running(store: RedisServer, relay: Relay) -> Iterator[Stack]:
    """The first service connects through the relay, the second directly."""
    services = ({"STORE_URL": relay.url}, {})
    with start_stack(
        store.url, services=services, graph_timeout=GRAPH_TIMEOUT
    ) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack, store: RedisServer) -> Iterator[Stack]:
    """An empty store that has our scripts loaded, and a Meta without counted calls."""
    running.reset()
    for n, service in enumerate(running.services):
        service.get(f"/profiles/{crowd(n)}")
    running.meta.order("reset")
    yield running
    store.resume()


def ask(
    pool: ThreadPoolExecutor, service: Service, times: int = CALLERS
) -> list[Future[requests.Response]]:
    return [pool.submit(service.get, f"/profiles/{ADA}") for _ in range(times)]


def assert_answered(callers: list[Future[requests.Response]]) -> None:
    """All callers got the same person in time."""
    answers = [caller.result() for caller in callers]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["name"] for answer in answers} == {"Ada"}
    assert max(answer.elapsed.total_seconds() for answer in answers) < LONGEST_WAIT


def assert_recovered(stack: Stack, *, calls: int) -> None:
    """Soon all callers get hits again, and an erase works.

    A store that hung is tried once a second. Once resumed, it executes the commands
    that it had not read: the lease of a caller who was answered without it may have
    to lapse first.
    """
    for service in stack.services:
        wait_until(lambda s=service: _is_ok(s), 1.5, "the store is tried again")
    with ThreadPoolExecutor(2) as pool:
        assert_answered(ask(pool, stack.service, 1) + ask(pool, stack.other, 1))
    for service in stack.services:
        assert _is_ok(service)
        hit = service.get(f"/profiles/{ADA}").headers["Cache-Status"]
        assert hit.startswith("profile-proxy; hit")
    assert stack.meta.calls(ADA) <= calls

    stack.meta.person(ADA, profile={"name": "Later"})
    assert stack.service.request("DELETE", f"/admin/profiles/{ADA}").ok
    names = {s.get(f"/profiles/{ADA}").json()["name"] for s in stack.services}
    assert names == {"Later"}


def _is_ok(service: Service) -> bool:
    return bool(service.get("/readyz").json()["status"] == "ok")


@pytest.mark.parametrize("step", STEPS)
def test_store_that_hangs_at_a_step_does_not_cost_an_answer(
    stack, store, relay, step
) -> None:
    """The store is stopped just before the step's command reaches it.

    At most three calls are made: one by the holder of the lease, and one by each
    service without the store. One more follows later, if nothing could be stored.
    """
    stack.meta.person(ADA, profile={"name": "Ada"}, delay=0.5)
    relay.before(*STEPS[step], store.pause)

    with ThreadPoolExecutor(2 * CALLERS) as pool:
        callers = ask(pool, stack.service)
        assert relay.acted.wait(10), f"no caller came to: {step}"
        callers += ask(pool, stack.other)
        assert_answered(callers)
    meanwhile = stack.meta.calls(ADA)
    store.resume()

    assert meanwhile <= 1 + 2
    assert_recovered(stack, calls=meanwhile + 1)


def test_store_that_hangs_during_the_call_does_not_cost_an_answer(stack, store) -> None:
    """The leader's service shares its answer; the other service makes its own call."""
    stack.meta.person(ADA, profile={"name": "Ada"}, wire="hang", times=1)

    with ThreadPoolExecutor(2 * CALLERS) as pool:
        callers = ask(pool, stack.service)
        stack.meta.await_calls(ADA)
        callers += ask(pool, stack.other)
        store.pause()
        stack.meta.person(ADA, profile={"name": "Ada"}, delay=0.5)
        stack.meta.await_calls(ADA, 2)
        stack.meta.order("release")
        assert_answered(callers)
    meanwhile = stack.meta.calls(ADA)
    store.resume()

    assert meanwhile <= 1 + 2
    assert_recovered(stack, calls=meanwhile + 1)


def test_caller_waits_no_longer_if_store_and_meta_both_hang(
    stack, store, relay
) -> None:
    """The failure is Meta's timeout."""
    stack.meta.person(ADA, wire="hang")
    relay.before(*STEPS["take the lease"], store.pause)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = ask(pool, stack.service)
        answers = [caller.result() for caller in callers]
    store.resume()
    stack.meta.person(ADA, profile={"name": "Ada"})
    stack.meta.order("release")
    open_gates(stack.redis)

    assert {answer.json()["code"] for answer in answers} == {"graph_timeout"}
    assert max(a.elapsed.total_seconds() for a in answers) < LONGEST_WAIT
    assert stack.meta.calls(ADA) == 1
    wait_until(
        lambda: not stack.redis.exists(f"pp:l:{{default:{ADA}}}"), 5, "it lapses"
    )
    assert_recovered(stack, calls=2)
