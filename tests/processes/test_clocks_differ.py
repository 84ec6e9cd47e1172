"""Two services, one with a clock that is five minutes ahead.

Leases, notes, gates and the TTL of an entry in Redis follow the clock of Redis alone.
The moments within an entry follow the clock of a host. So the service that is ahead
gives up an entry of the other early. The service that is behind uses an entry of the
other for too long, but no longer than Redis keeps it; and if it is behind the true
time, a picture in its last minutes may be dead already. It cannot prevent that,
because it cannot know that its clock is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    BEN,
    all_at_once,
    crowd,
)
from tests.helpers.stack import Stack, start_stack

AHEAD_BY = 300.0
CONSENT_TTL = 600.0
CALLERS = 20
REFUSED = {"error": {"code": 230, "status": 403}}


RIGHT, AHEAD = 0, 1
"""The services of the stack, by whether their clock is right."""

both = pytest.mark.parametrize("which", [RIGHT, AHEAD], ids=["right", "ahead"])


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    settings = {"CONSENT_TTL": f"{CONSENT_TTL:.0f}s"}
    services = ({}, {"clock_ahead": AHEAD_BY})
    with (
        engine.start() as store,
        start_stack(store.url, services=services, settings=settings) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    running.reset()
    return running


def seconds_kept(stack: Stack, igsid: str) -> float:
    return stack.redis.pttl(f"pp:e:{{default:{igsid}}}") / 1000


def a_dying_picture(seconds: float) -> dict[str, object]:
    """Return Ada with a picture that dies in *seconds* of the true time."""
    oe = f"{int(time.time() + seconds):X}"
    url = f"https://scontent.cdninstagram.com/v/ada.jpg?oe={oe}"
    return {"profile": {"name": "Ada", "profile_pic": url}}


def test_readyz_reports_a_clock_that_differs_from_the_store_s(stack) -> None:
    """The service is degraded, and still ready."""
    assert stack.service.get("/readyz").json() == {"status": "ok", "reasons": []}
    ahead = stack.other.get("/readyz")
    assert ahead.status_code == 200
    assert ahead.json() == {"status": "degraded", "reasons": ["clock_skew"]}


@both
def test_cold_callers_of_both_services_cause_one_call(stack, which) -> None:
    """Whichever service leads, the callers of the other follow, and then hit."""
    stack.meta.person(ADA, delay=0.5)
    first = stack.services[which]

    with ThreadPoolExecutor(1) as pool:
        led = pool.submit(first.get, f"/profiles/{ADA}")
        stack.meta.await_calls(ADA)
        answers = all_at_once(
            [
                lambda s=stack.services[n % 2]: s.get(f"/profiles/{ADA}")
                for n in range(CALLERS)
            ]
        )
        answers += [led.result()] + [s.get(f"/profiles/{ADA}") for s in stack.services]

    assert {answer.status_code for answer in answers} == {200}
    assert min(int(answer.headers["Age"]) for answer in answers) == 0
    assert stack.meta.calls(ADA) == 1


@both
def test_gate_reopens_at_the_same_moment_for_both_services(stack, which) -> None:
    """The moment follows Redis's clock, and so does Retry-After."""
    stack.meta.order("throttle", code=4, minutes=2)
    stack.services[which].get(f"/profiles/{crowd(1)}")

    answers = [
        service.get(f"/profiles/{crowd(n)}")
        for n, service in enumerate(stack.services, 2)
    ]

    assert {answer.json()["code"] for answer in answers} == {"throttled"}
    waits = [int(answer.headers["Retry-After"]) for answer in answers]
    assert min(waits) > 100 and max(waits) <= 120
    assert stack.meta.overview()["total"] == 1


@both
def test_refusal_is_kept_no_longer_than_its_ttl(stack, which) -> None:
    """Redis ends it, whichever service stored it; both may serve it until then."""
    stack.meta.person(BEN, **REFUSED)

    stack.services[which].get(f"/profiles/{BEN}")
    answers = [s.get(f"/profiles/{BEN}") for s in stack.services]

    assert {answer.status_code for answer in answers} == {403}
    assert {answer.json()["code"] for answer in answers} == {"consent_required"}
    assert 0 < seconds_kept(stack, BEN) <= CONSENT_TTL
    assert min(int(answer.headers["Age"]) for answer in answers) >= 0
    assert stack.meta.calls(BEN) == 1


def test_service_that_is_ahead_gives_up_a_refusal_early(stack) -> None:
    """A refusal with four minutes left has expired for it, so it asks Meta again."""
    stack.meta.person(BEN, **REFUSED)
    stack.service.get(f"/profiles/{BEN}")
    entry, left = f"pp:e:{{default:{BEN}}}", 240
    stored = stack.redis.get(entry)
    moved = _moved(stored, seconds=left - CONSENT_TTL)
    stack.redis.set(entry, moved, ex=left)

    right = stack.service.get(f"/profiles/{BEN}").headers["Cache-Status"]
    ahead = stack.other.get(f"/profiles/{BEN}").headers["Cache-Status"]

    assert right.startswith("profile-proxy; hit")
    assert ahead.startswith("profile-proxy; fwd=uri-miss; stored")
    assert 0 < seconds_kept(stack, BEN) <= CONSENT_TTL


def test_service_that_is_ahead_omits_a_picture_that_looks_dead(stack) -> None:
    """A picture with two minutes left is dead for it; its entry then has none."""
    stack.meta.person(ADA, **a_dying_picture(120))

    alive = stack.service.get(f"/profiles/{ADA}")
    kept = seconds_kept(stack, ADA)
    ahead = stack.other.get(f"/profiles/{ADA}")
    after = stack.service.get(f"/profiles/{ADA}")

    assert alive.json()["profile_pic"] is not None
    assert kept <= 60
    assert ahead.json()["profile_pic"] is after.json()["profile_pic"] is None
    assert 0 < seconds_kept(stack, ADA) <= 300


def test_picture_stored_by_the_service_ahead_ends_before_it_dies(stack) -> None:
    """The TTL in Redis is a difference, so the error of the clock cancels out."""
    stack.meta.person(ADA, **a_dying_picture(420))

    stack.other.get(f"/profiles/{ADA}")

    assert stack.service.get(f"/profiles/{ADA}").json()["profile_pic"] is not None
    assert 0 < seconds_kept(stack, ADA) <= 60


def _moved(stored: bytes, *, seconds: float) -> bytes:
    """Return the entry as if it had been stored *seconds* later."""
    entry = json.loads(stored)
    entry[2:5] = [moment + seconds for moment in entry[2:5]]
    return json.dumps(entry, separators=(",", ":")).encode()
