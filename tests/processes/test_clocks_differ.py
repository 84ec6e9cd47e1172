"""Two instances, the clock of one of which is five minutes ahead.

Leases, notes, gates and how long Redis keeps an entry are by Redis's clock alone. What
is by the clock of a host: the moments within an entry. So the instance whose clock is
ahead gives an entry of another up early. The one that is behind uses what the other
has stored for longer than it should, if for no longer than Redis keeps it; and if it
is behind the true time, a picture in its last minutes may be dead already. Nothing can
be done about that where it happens: it cannot know that its clock is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    BEN,
    PAGE_TOKEN,
    Service,
    SimulatedMeta,
    all_at_once,
    crowd,
    empty,
)

AHEAD = 300.0
CONSENT_TTL = 600.0
CALLERS = 20
REFUSED = {"error": {"code": 230, "status": 403}}


@pytest.fixture(scope="module")
def running() -> Iterator[SimpleNamespace]:
    with engine.start() as store:
        meta = SimulatedMeta()
        settings = {
            "PAGE_TOKEN": PAGE_TOKEN,
            "GRAPH_URL": meta.url,
            "GRAPH_TIMEOUT": "2s",
            "STORE_URL": store.url,
            "CONSENT_TTL": f"{CONSENT_TTL:.0f}s",
            "WORKERS": "1",
        }
        right = Service(**settings)
        ahead = Service(clock_ahead=AHEAD, **settings)
        client = redis.Redis.from_url(store.url)
        yield SimpleNamespace(meta=meta, right=right, ahead=ahead, redis=client)
        client.close()
        right.stop()
        ahead.process.kill()
        ahead.process.wait()
        ahead.stop()
        meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> SimpleNamespace:
    empty(running.redis, running.right, running.ahead)
    running.meta.order("reset")
    return running


def seconds_kept(stack: SimpleNamespace, igsid: str) -> float:
    return stack.redis.pttl(f"pp:e:{{default:{igsid}}}") / 1000


def a_dying_picture(seconds: float) -> dict[str, object]:
    """Ada, whose picture dies in so many seconds of the true time."""
    oe = f"{int(time.time() + seconds):X}"
    url = f"https://scontent.cdninstagram.com/v/ada.jpg?oe={oe}"
    return {"profile": {"name": "Ada", "profile_pic": url}}


def test_the_one_whose_clock_is_not_the_store_s_says_so(stack) -> None:
    """It serves all the same."""
    assert stack.right.get("/readyz").json() == {"status": "ok", "reasons": []}
    told = stack.ahead.get("/readyz")
    assert told.status_code == 200
    assert told.json() == {"status": "degraded", "reasons": ["clock_skew"]}


@pytest.mark.parametrize("leader", ["right", "ahead"])
def test_cold_callers_of_both_cause_one_call(stack, leader) -> None:
    """Whoever leads; the others follow across the five minutes, and then hit."""
    stack.meta.person(ADA, delay=0.5)
    services = (stack.right, stack.ahead)
    first = getattr(stack, leader)

    with ThreadPoolExecutor(1) as pool:
        led = pool.submit(first.get, f"/profiles/{ADA}")
        stack.meta.await_calls(ADA)
        answers = all_at_once(
            [
                lambda s=services[n % 2]: s.get(f"/profiles/{ADA}")
                for n in range(CALLERS)
            ]
        )
        answers += [led.result()] + [s.get(f"/profiles/{ADA}") for s in services]

    assert {answer.status_code for answer in answers} == {200}
    assert min(int(answer.headers["Age"]) for answer in answers) == 0
    assert stack.meta.calls(ADA) == 1


@pytest.mark.parametrize("closer", ["right", "ahead"])
def test_the_gate_is_as_closed_for_both(stack, closer) -> None:
    """Until when is by Redis's clock, and so is Retry-After."""
    stack.meta.order("throttle", code=4, minutes=2)
    getattr(stack, closer).get(f"/profiles/{crowd(1)}")

    answers = [
        service.get(f"/profiles/{crowd(n)}")
        for n, service in enumerate((stack.right, stack.ahead), 2)
    ]

    assert {answer.json()["code"] for answer in answers} == {"throttled"}
    waits = [int(answer.headers["Retry-After"]) for answer in answers]
    assert min(waits) > 100 and max(waits) <= 120
    assert stack.meta.overview()["total"] == 1


@pytest.mark.parametrize("sender", ["right", "ahead"])
def test_a_refusal_is_kept_for_no_longer_than_its_ttl(stack, sender) -> None:
    """Whoever stores it, Redis ends it; both may serve it until then."""
    stack.meta.person(BEN, **REFUSED)

    getattr(stack, sender).get(f"/profiles/{BEN}")
    answers = [s.get(f"/profiles/{BEN}") for s in (stack.right, stack.ahead)]

    assert {answer.status_code for answer in answers} == {403}
    assert {answer.json()["code"] for answer in answers} == {"consent_required"}
    assert 0 < seconds_kept(stack, BEN) <= CONSENT_TTL
    assert min(int(answer.headers["Age"]) for answer in answers) >= 0
    assert stack.meta.calls(BEN) == 1


def test_the_instance_that_is_ahead_gives_a_refusal_up_early(stack) -> None:
    """A refusal with four minutes left is past for it, and Meta is asked again."""
    stack.meta.person(BEN, **REFUSED)
    stack.right.get(f"/profiles/{BEN}")
    entry, left = f"pp:e:{{default:{BEN}}}", 240
    stored = stack.redis.get(entry)
    moved = _moved(stored, seconds=left - CONSENT_TTL)
    stack.redis.set(entry, moved, ex=left)

    right = stack.right.get(f"/profiles/{BEN}").headers["Cache-Status"]
    ahead = stack.ahead.get(f"/profiles/{BEN}").headers["Cache-Status"]

    assert right.startswith("profile-proxy; hit")
    assert ahead.startswith("profile-proxy; fwd=uri-miss; stored")
    assert 0 < seconds_kept(stack, BEN) <= CONSENT_TTL


def test_the_instance_that_is_ahead_sends_no_dead_picture(stack) -> None:
    """One with two minutes left is dead for it: it is left out, for both."""
    stack.meta.person(ADA, **a_dying_picture(120))

    alive = stack.right.get(f"/profiles/{ADA}")
    kept = seconds_kept(stack, ADA)
    ahead = stack.ahead.get(f"/profiles/{ADA}")
    after = stack.right.get(f"/profiles/{ADA}")

    assert alive.json()["profile_pic"] is not None
    assert kept <= 60
    assert ahead.json()["profile_pic"] is after.json()["profile_pic"] is None
    assert 0 < seconds_kept(stack, ADA) <= 300


def test_a_picture_stored_by_the_one_ahead_ends_before_it_dies(stack) -> None:
    """Redis's time to live is a difference, in which a wrong clock cancels out."""
    stack.meta.person(ADA, **a_dying_picture(420))

    stack.ahead.get(f"/profiles/{ADA}")

    assert stack.right.get(f"/profiles/{ADA}").json()["profile_pic"] is not None
    assert 0 < seconds_kept(stack, ADA) <= 60


def _moved(stored: bytes, *, seconds: float) -> bytes:
    """The entry as if it had been stored so many *seconds* later."""
    entry = json.loads(stored)
    entry[2:5] = [moment + seconds for moment in entry[2:5]]
    return json.dumps(entry, separators=(",", ":")).encode()
