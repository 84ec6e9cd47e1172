"""Promise 4 over several real processes: a message ends a refusal at once."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.processes import (
    a_webhook,
    all_at_once,
    crowd,
    post_webhook,
    wait_until,
)
from tests.helpers.stack import Stack

CALLERS = 4
"""Callers of each instance, without pauses."""

REFUSED = {"error": {"code": 230, "status": 403}}

_numbers = itertools.count(1)


class Hammer:
    """Callers that request one person from all instances, until ``stop()``.

    ``answers`` has the moment of each request and the status of its answer.
    """

    def __init__(self, stack: Stack, igsid: str) -> None:
        self.answers: list[tuple[float, int]] = []
        self._path = f"/profiles/{igsid}"
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(2 * CALLERS)
        self._callers = [
            self._pool.submit(self._ask, service)
            for service in stack.services
            for _ in range(CALLERS)
        ]

    def statuses_since(self, moment: float) -> list[int]:
        """Return the statuses of the requests made after *moment*."""
        return [status for sent_at, status in self.answers if sent_at > moment]

    def stop(self) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.result(30)
        self._pool.shutdown()

    def _ask(self, service: Any) -> None:
        while not self._stop.is_set():
            sent_at = time.monotonic()
            self.answers.append((sent_at, service.get(self._path).status_code))


@pytest.mark.parametrize("state", ["stored", "being fetched"])
def test_refusal_is_not_served_after_a_message_is_acknowledged(stack, state) -> None:
    """At any load, whichever instance gets the webhook, with or without a flight."""
    for receiver in [stack.service, stack.other] * 3:
        igsid = crowd(next(_numbers))
        delay = 0.0 if state == "stored" else 0.7
        stack.meta.person(igsid, **REFUSED, delay=delay)
        hammer = Hammer(stack, igsid)
        try:
            stack.meta.await_calls(igsid)
            if state == "stored":
                wait_until(
                    lambda h=hammer: len(h.answers) > 50, 10, "they get refusals"
                )
            stack.meta.person(igsid, profile={"name": "Ben"})
            assert post_webhook(receiver, a_webhook(igsid)).status_code == 200
            acknowledged = time.monotonic()
            wait_until(
                lambda h=hammer, m=acknowledged: len(h.statuses_since(m)) > 50,
                10,
                "they have asked again",
            )
        finally:
            hammer.stop()
        assert set(hammer.statuses_since(acknowledged)) == {200}
        if state == "stored":
            assert 403 in {status for _, status in hammer.answers}


def test_webhook_does_not_wait_for_a_call_under_way(stack) -> None:
    """That call may hang, and its reply is from before the message."""
    igsid = crowd(next(_numbers))
    stack.meta.person(igsid, **REFUSED, wire="hang", times=1)

    def heal() -> tuple[int, int]:
        stack.meta.await_calls(igsid)
        stack.meta.person(igsid, profile={"name": "Ben"})
        acknowledged = post_webhook(stack.other, a_webhook(igsid)).status_code
        after = stack.other.get(f"/profiles/{igsid}").status_code
        stack.meta.order("release")
        return acknowledged, after

    healed, *statuses = all_at_once(
        [
            heal,
            lambda: stack.service.get(f"/profiles/{igsid}").status_code,
            lambda: stack.other.get(f"/profiles/{igsid}").status_code,
        ]
    )

    assert (healed, statuses) == ((200, 200), [200, 200])
    assert stack.meta.calls(igsid) == 2


def test_webhook_with_1000_senders_is_acknowledged_within_1_5_s(stack) -> None:
    """Refusals that both instances had fetched are not served any more."""
    people = [crowd(next(_numbers)) for _ in range(1000)]
    refused = people[:20]
    for igsid in refused:
        stack.meta.person(igsid, **REFUSED)
        assert stack.service.get(f"/profiles/{igsid}").status_code == 403
        assert stack.other.get(f"/profiles/{igsid}").status_code == 403
        stack.meta.person(igsid, profile={"name": "Ben"})

    began = time.monotonic()
    answer = post_webhook(stack.service, a_webhook(*people))
    took = time.monotonic() - began

    assert answer.json() == {"updates": 1000, "writers": 1000}
    assert took < 1.5
    for igsid in refused:
        assert stack.service.get(f"/profiles/{igsid}").status_code == 200
        assert stack.other.get(f"/profiles/{igsid}").status_code == 200


def test_refusal_after_a_message_is_kept_for_five_seconds(stack) -> None:
    """Meta may send the webhook before it shows the person.

    A refusal without a message is kept for its whole TTL.
    """
    igsid, silent = crowd(next(_numbers)), crowd(next(_numbers))
    for each in (igsid, silent):
        stack.meta.person(each, **REFUSED)
    post_webhook(stack.service, a_webhook(igsid))

    early = stack.other.get(f"/profiles/{igsid}")
    stack.other.get(f"/profiles/{silent}")

    assert early.status_code == 403
    assert 0 < stack.redis.pttl(f"pp:e:{{default:{igsid}}}") <= 5000
    assert stack.redis.pttl(f"pp:e:{{default:{silent}}}") > 600_000
    entry = stack.service.get(f"/admin/profiles/{igsid}").json()["entry"]
    assert entry["fresh_until"] == entry["usable_until"]
    status = stack.service.get(f"/profiles/{igsid}").headers["Cache-Status"]
    assert int(status.split("ttl=")[1].split(";")[0]) < 5
    stack.redis.pexpire(f"pp:e:{{default:{igsid}}}", 1)
    stack.meta.person(igsid, profile={"name": "Ben"})
    wait_until(
        lambda: stack.service.get(f"/profiles/{igsid}").status_code == 200,
        5,
        "it heals",
    )


def test_batch_that_waits_for_one_person_drops_another_s_old_refusal(stack) -> None:
    """It read the refusal, and answers after the message was acknowledged."""
    igsid, slow = crowd(next(_numbers)), crowd(next(_numbers))
    stack.meta.person(igsid, **REFUSED)
    assert stack.service.get(f"/profiles/{igsid}").status_code == 403
    stack.meta.person(slow, wire="hang", times=1)

    def heal() -> int:
        stack.meta.await_calls(slow)
        stack.meta.person(igsid, profile={"name": "Ben"})
        acknowledged = post_webhook(stack.other, a_webhook(igsid)).status_code
        stack.meta.order("release")
        return acknowledged

    healed, batch = all_at_once(
        [heal, lambda: stack.service.get(f"/profiles?ids={igsid},{slow}").json()]
    )

    assert healed == 200
    assert batch["problems"] == {}
    assert batch["profiles"][igsid]["name"] == "Ben"
