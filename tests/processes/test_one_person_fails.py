"""A person about whom Meta fails, polled without pause over two processes.

Each is asked about 20 times a second for 5 s while Meta answers 500. All share that
wait, and each has calls, and answers afterwards, of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from proxy.embedded import engine
from tests.helpers.processes import (
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    a_webhook,
    crowd,
    post_webhook,
    wait_until,
)
from tests.helpers.stack import Stack, start_stack

FAILING = (ADA, BEN, CLEO, DOV) = tuple(crowd(90_000 + n) for n in range(4))
POLLED_FOR, PER_SECOND = 5.0, 20
NO_CACHE = {"Cache-Control": "no-cache"}


class Polled(NamedTuple):
    """The stack after the polling: per person, calls to Meta and the last answer.

    *others* are the statuses of people whom Meta showed meanwhile; *ended_at* is the
    end, by the monotonic clock.
    """

    stack: Stack
    calls: dict[str, int]
    retry_after: dict[str, str | None]
    others: set[int]
    ended_at: float


def status_of(
    stack: Stack, igsid: str, headers: Mapping[str, str] | None = None
) -> int:
    answer = stack.service.get(f"/profiles/{igsid}", headers=headers)
    return int(answer.status_code)


def refresh(stack: Stack, igsid: str) -> int:
    path = f"/admin/profiles/{igsid}/refresh"
    return int(stack.service.request("POST", path).status_code)


@pytest.fixture(scope="module")
def polled() -> Iterator[Polled]:
    settings = {"WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN, "WEBHOOK_SECRETS": WEBHOOK_SECRET}
    with (
        engine.start() as store,
        start_stack(store.url, services=({}, {}), settings=settings) as stack,
    ):
        for igsid in FAILING:
            stack.meta.person(igsid, error={"code": 2, "status": 500})
        others, last = set(), {}
        started, n = time.monotonic(), 0
        while (now := time.monotonic()) < started + POLLED_FOR:
            for igsid in FAILING:
                last[igsid] = stack.services[n % 2].get(f"/profiles/{igsid}")
            # Between failures Meta shows people, so no gate has a reason to close.
            others.add(status_of(stack, crowd(n)))
            n += 1
            time.sleep(max(0.0, now + 1 / PER_SECOND - time.monotonic()))
        yield Polled(
            stack,
            {igsid: stack.meta.calls(igsid) for igsid in FAILING},
            {
                igsid: answer.headers.get("Retry-After")
                for igsid, answer in last.items()
            },
            others,
            time.monotonic(),
        )


def test_polled_person_costs_calls_at_growing_pauses(polled) -> None:
    """At 0 s, 1 s and 3 s; 100 requests about each, and no gate closes."""
    assert set(polled.calls.values()) == {3}
    assert {int(seconds) for seconds in polled.retry_after.values()} <= {1, 2, 3}
    assert polled.others == {200}


def test_no_cache_passes_the_pause_after_half_of_it(polled) -> None:
    """Of the 4 s after the third call, at 3 s, which hold for others to their end."""
    stack = polled.stack
    stack.meta.person(DOV)
    time.sleep(max(0.0, polled.ended_at + 0.3 - time.monotonic()))

    plain, forced = status_of(stack, DOV), status_of(stack, DOV, NO_CACHE)

    assert (plain, forced) == (502, 200)


def test_healed_person_is_shown_within_the_pause(polled) -> None:
    """4 s after the third call, at 3 s."""
    stack = polled.stack
    stack.meta.person(ADA)

    wait_until(lambda: status_of(stack, ADA) == 200, 3.0, "Ada is shown")

    assert stack.meta.calls(ADA) == 4
    assert time.monotonic() < polled.ended_at + 3.0


def test_message_ends_the_pause_once_a_minute(polled) -> None:
    """The first brings the answer at once; a second, soon after, causes no call.

    An operator's refresh passes any pause, and each failure makes it longer.
    """
    stack = polled.stack
    for igsid in (BEN, CLEO):
        refresh(stack, igsid)
    stack.meta.person(BEN)
    assert post_webhook(stack.other, a_webhook(BEN, CLEO)).status_code == 200

    assert status_of(stack, BEN) == 200
    assert status_of(stack, CLEO) == 502
    assert [refresh(stack, CLEO) for _ in range(3)] == [502] * 3
    calls = stack.meta.calls(CLEO)
    assert calls == polled.calls[CLEO] + 5
    assert post_webhook(stack.other, a_webhook(CLEO)).status_code == 200
    assert status_of(stack, CLEO) == 502
    assert stack.meta.calls(CLEO) == calls
