"""Promises 1 and 5 over several real processes: one call, and final erasure."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.helpers.processes import ADA, BEN, all_at_once, crowd, wait_until
from tests.helpers.stack import Stack

CALLERS = 300


GRAPH_TIMEOUT = 3.0


def make_older(stack: Stack, igsid: str) -> None:
    """Move the fetch of the entry ten seconds into the past."""
    key = f"pp:e:{{default:{igsid}}}"
    entry = json.loads(stack.redis.get(key))
    entry[2] -= 10  # fetched_at
    older = json.dumps(entry, separators=(",", ":"))
    stack.redis.set(key, older, keepttl=True)


def ask_all(stack: Stack, igsid: str, callers: int = CALLERS) -> list[Any]:
    """Request one cold person *callers* times at once, half of it at each instance."""
    return all_at_once(
        [
            lambda service=stack.services[n % 2]: service.get(f"/profiles/{igsid}")
            for n in range(callers)
        ]
    )


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"delay": 1.0}, 200, None),
        (
            {"delay": 1.0, "error": {"code": 230, "status": 403}},
            403,
            "consent_required",
        ),
        ({"delay": 1.0, "error": {"code": 9010}}, 404, "not_found"),
        # A failure is shared for a second after it: the last caller must come by then.
        ({"delay": 2.5, "error": {"code": 2, "status": 503}}, 502, "graph_unavailable"),
        ({"wire": "hang"}, 504, "graph_timeout"),
    ],
    ids=["profile", "consent", "not found", "failure", "timeout"],
)
def test_300_cold_callers_of_two_instances_cause_one_call(
    stack, script, status, code
) -> None:
    """All callers get Meta's answer, whatever it is."""
    igsid = crowd(1)
    stack.meta.person(igsid, **script)

    answers = ask_all(stack, igsid)
    stack.meta.order("release")

    assert Counter(answer.status_code for answer in answers) == {status: CALLERS}
    assert {answer.json().get("code") for answer in answers} == {code}
    assert stack.meta.calls(igsid) == 1


def test_cache_status_tells_the_leader_from_its_followers(stack) -> None:
    """One answer is stored; others are collapsed, or hits that came later."""
    igsid = crowd(2)
    stack.meta.person(igsid, delay=1.0)

    answers = ask_all(stack, igsid, 40)

    kinds = Counter(
        answer.headers["Cache-Status"].split("; ", 1)[1] for answer in answers
    )
    assert kinds["fwd=uri-miss; stored"] == 1
    assert kinds["fwd=uri-miss; collapsed"] > 0


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"delay": 1.5}, {"fwd=request; stored", "fwd=request; collapsed"}),
        (
            {"delay": 1.5, "error": {"code": 2, "status": 503}},
            {"fwd=stale; detail=graph_unavailable"},
        ),
    ],
    ids=["profile", "failure"],
)
def test_100_callers_with_no_cache_cause_one_call(stack, script, expected) -> None:
    """Neither the stored entry nor an old failure answers them, but one flight does."""
    igsid = crowd(3)
    stack.service.get(f"/profiles/{igsid}")
    make_older(stack, igsid)
    stack.meta.person(igsid, **script)

    answers = all_at_once(
        [
            lambda service=stack.services[n % 2]: service.get(
                f"/profiles/{igsid}", headers={"Cache-Control": "no-cache"}
            )
            for n in range(100)
        ]
    )

    kinds = {answer.headers["Cache-Status"].split("; ", 1)[1] for answer in answers}
    assert {answer.status_code for answer in answers} == {200}
    assert kinds == expected
    assert stack.meta.calls(igsid) == 2


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ({"delay": 1.0, "profile": {"name": "After"}}, 200),
        ({"delay": 1.0, "error": {"code": 230, "status": 403}}, 200),
        ({"delay": 1.0, "error": {"code": 2, "status": 503}}, 502),
    ],
    ids=["profile", "consent", "failure"],
)
def test_forced_refreshes_at_the_same_time_cause_one_call(
    stack, script, status
) -> None:
    """At two instances, though a fresh profile is stored."""
    igsid = crowd(7)
    stack.service.get(f"/profiles/{igsid}")
    stack.meta.person(igsid, **script)

    answers = all_at_once(
        [
            lambda service=stack.services[n % 2]: service.request(
                "POST", f"/admin/profiles/{igsid}/refresh"
            )
            for n in range(20)
        ]
    )

    assert Counter(answer.status_code for answer in answers) == {status: 20}
    assert stack.meta.calls(igsid) == 1 + 1


def test_batches_and_single_requests_share_one_call_for_each_person(stack) -> None:
    """Three batches that overlap, at two instances, and one single request."""
    people = [crowd(n) for n in range(10, 40)]
    for igsid in people:
        stack.meta.person(igsid, delay=1.0)
    batches = [people[:20], people[10:], people[::-1]]

    answers = all_at_once(
        [
            lambda service=stack.services[n % 2], batch=batch: service.get(
                f"/profiles?ids={','.join(batch)}"
            )
            for n, batch in enumerate(batches)
        ]
        + [lambda: stack.other.get(f"/profiles/{people[0]}")]
    )

    assert [list(batch.json()["profiles"]) for batch in answers[:3]] == batches
    assert answers[3].json()["id"] == people[0]
    assert [stack.meta.calls(igsid) for igsid in people] == [1] * len(people)


@pytest.mark.parametrize("how", ["erase", "flush"])
def test_fetch_from_before_an_erase_is_not_served_after_it(stack, how) -> None:
    """A fetch under way writes nothing, and its callers get a later outcome."""
    stack.meta.person(ADA, profile={"name": "Before"}, wire="hang", times=1)

    def ask(service: Any) -> Any:
        return lambda: service.get(f"/profiles/{ADA}").json()["name"]

    def remove() -> None:
        stack.meta.await_calls(ADA, 1)
        lease = f"pp:l:{{default:{ADA}}}"
        wait_until(lambda: stack.redis.exists(lease) == 1, 5, "the lease is there")
        stack.meta.person(ADA, profile={"name": "After"})
        if how == "erase":
            stack.other.request("DELETE", f"/admin/profiles/{ADA}")
        else:
            stack.other.flush()
        # The call that hangs will return Meta's data from before the removal.
        after = stack.other.get(f"/profiles/{ADA}").json()["name"]
        stack.meta.order("release")
        assert after == "After"

    names = all_at_once([remove, *[ask(stack.service)] * 5, *[ask(stack.other)] * 5])

    assert set(names[1:]) == {"After"}
    assert stack.service.get(f"/profiles/{ADA}").json()["name"] == "After"
    assert stack.meta.calls(ADA) == 2


def test_erased_refusal_is_not_served_by_the_call_under_way(stack) -> None:
    """The person may have given consent meanwhile."""
    stack.meta.person(BEN, error={"code": 230, "status": 403}, wire="hang", times=1)

    def heal() -> None:
        stack.meta.await_calls(BEN, 1)
        stack.meta.person(BEN, profile={"name": "Ben"})
        stack.other.request("DELETE", f"/admin/profiles/{BEN}")
        stack.meta.order("release")

    answers = all_at_once([heal, lambda: stack.service.get(f"/profiles/{BEN}")])

    assert answers[1].status_code == 200
    assert stack.meta.calls(BEN) == 2


def test_two_instances_share_the_entries_of_one_store(stack) -> None:
    """Each serves the other's fetches, and fetches again after the other's erase."""
    first = stack.service.get(f"/profiles/{ADA}")
    second = stack.other.get(f"/profiles/{ADA}")
    erased = stack.service.request("DELETE", f"/admin/profiles/{ADA}").json()
    third = stack.other.get(f"/profiles/{ADA}")

    assert second.json() == first.json()
    assert second.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert erased["was_there"]["entry"] is True
    assert third.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert stack.meta.calls(ADA) == 2
