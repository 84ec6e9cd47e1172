"""Promise 4 over several real processes: consent heals as soon as somebody writes."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.processes import (
    a_webhook,
    all_at_once,
    crowd,
    post_webhook,
    wait_until,
)

CALLERS = 4
"""Callers of each instance, none of whom ever pauses."""

REFUSED = {"error": {"code": 230, "status": 403}}

_numbers = itertools.count(1)


class Hammer:
    """Callers who ask all instances for one person until they are told to stop.

    ``told`` is when each answer was asked for, and its status.
    """

    def __init__(self, stack: SimpleNamespace, igsid: str) -> None:
        self.told: list[tuple[float, int]] = []
        self._path = f"/profiles/{igsid}"
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(2 * CALLERS)
        self._callers = [
            self._pool.submit(self._ask, service)
            for service in (stack.one, stack.other)
            for _ in range(CALLERS)
        ]

    def asked_since(self, moment: float) -> list[int]:
        """The statuses of those who asked later than that."""
        return [status for asked_at, status in self.told if asked_at > moment]

    def stop(self) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.result(30)
        self._pool.shutdown()

    def _ask(self, service: Any) -> None:
        while not self._stop.is_set():
            asked_at = time.monotonic()
            self.told.append((asked_at, service.get(self._path).status_code))


@pytest.mark.parametrize("state", ["stored", "being asked about"])
def test_once_a_message_is_acknowledged_nobody_is_told_what_was_before(
    stack, state
) -> None:
    """However hard they ask, whoever gets the webhook, and whatever is under way."""
    for receiver in [stack.one, stack.other] * 3:
        igsid = crowd(next(_numbers))
        delay = 0.0 if state == "stored" else 0.7
        stack.meta.person(igsid, **REFUSED, delay=delay)
        hammer = Hammer(stack, igsid)
        try:
            stack.meta.await_calls(igsid)
            if state == "stored":
                wait_until(lambda h=hammer: len(h.told) > 50, 10, "they are refused")
            stack.meta.person(igsid, profile={"name": "Ben"})
            assert post_webhook(receiver, a_webhook(igsid)).status_code == 200
            acknowledged = time.monotonic()
            wait_until(
                lambda h=hammer, m=acknowledged: len(h.asked_since(m)) > 50,
                10,
                "they have asked again",
            )
        finally:
            hammer.stop()
        assert set(hammer.asked_since(acknowledged)) == {200}
        if state == "stored":
            assert 403 in {status for _, status in hammer.told}


def test_a_call_under_way_is_not_waited_for(stack) -> None:
    """It may hang, and knows only what was true before."""
    igsid = crowd(next(_numbers))
    stack.meta.person(igsid, **REFUSED, wire="hang", times=1)

    def heal() -> tuple[int, int]:
        stack.meta.await_calls(igsid)
        stack.meta.person(igsid, profile={"name": "Ben"})
        acknowledged = post_webhook(stack.other, a_webhook(igsid)).status_code
        after = stack.other.get(f"/profiles/{igsid}").status_code
        stack.meta.order("release")
        return acknowledged, after

    healed, *asked = all_at_once(
        [
            heal,
            lambda: stack.one.get(f"/profiles/{igsid}").status_code,
            lambda: stack.other.get(f"/profiles/{igsid}").status_code,
        ]
    )

    assert (healed, asked) == ((200, 200), [200, 200])
    assert stack.meta.calls(igsid) == 2


def test_messages_are_acknowledged_once_for_all_who_have_written(stack) -> None:
    """A thousand people whom both instances were refused, within 1.5 s."""
    people = [crowd(next(_numbers)) for _ in range(1000)]
    asked = people[:20]
    for igsid in asked:
        stack.meta.person(igsid, **REFUSED)
        assert stack.one.get(f"/profiles/{igsid}").status_code == 403
        assert stack.other.get(f"/profiles/{igsid}").status_code == 403
        stack.meta.person(igsid, profile={"name": "Ben"})

    began = time.monotonic()
    answer = post_webhook(stack.one, a_webhook(*people))
    took = time.monotonic() - began

    assert answer.json() == {"updates": 1000, "writers": 1000}
    assert took < 1.5
    for igsid in asked:
        assert stack.one.get(f"/profiles/{igsid}").status_code == 200
        assert stack.other.get(f"/profiles/{igsid}").status_code == 200


def test_consent_that_lags_is_asked_for_again_within_five_seconds(stack) -> None:
    """Meta may send the webhook first; without one, a refusal is kept for longer."""
    igsid, silent = crowd(next(_numbers)), crowd(next(_numbers))
    for each in (igsid, silent):
        stack.meta.person(each, **REFUSED)
    post_webhook(stack.one, a_webhook(igsid))

    early = stack.other.get(f"/profiles/{igsid}")
    stack.other.get(f"/profiles/{silent}")

    assert early.status_code == 403
    assert 0 < stack.redis.pttl(f"pp:e:{{default:{igsid}}}") <= 5000
    assert stack.redis.pttl(f"pp:e:{{default:{silent}}}") > 600_000
    entry = stack.one.get(f"/admin/profiles/{igsid}").json()["entry"]
    assert entry["fresh_until"] == entry["usable_until"]
    ttl = stack.one.get(f"/profiles/{igsid}").headers["Cache-Status"].split("ttl=")[1]
    assert int(ttl.split(";")[0]) < 5
    stack.redis.pexpire(f"pp:e:{{default:{igsid}}}", 1)
    stack.meta.person(igsid, profile={"name": "Ben"})
    wait_until(
        lambda: stack.one.get(f"/profiles/{igsid}").status_code == 200, 5, "it heals"
    )


def test_a_page_that_waits_for_somebody_tells_nothing_from_before(stack) -> None:
    """It has seen the refusal, and is answered after the message was acknowledged."""
    igsid, slow = crowd(next(_numbers)), crowd(next(_numbers))
    stack.meta.person(igsid, **REFUSED)
    assert stack.one.get(f"/profiles/{igsid}").status_code == 403
    stack.meta.person(slow, wire="hang", times=1)

    def heal() -> int:
        stack.meta.await_calls(slow)
        stack.meta.person(igsid, profile={"name": "Ben"})
        acknowledged = post_webhook(stack.other, a_webhook(igsid)).status_code
        stack.meta.order("release")
        return acknowledged

    healed, page = all_at_once(
        [heal, lambda: stack.one.get(f"/profiles?ids={igsid},{slow}").json()]
    )

    assert healed == 200
    assert page["problems"] == {}
    assert page["profiles"][igsid]["name"] == "Ben"
