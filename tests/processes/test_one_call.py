"""Promises 1 and 5 over several real processes: one call, and gone is gone."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.processes import ADA, BEN, all_at_once, crowd, wait_until

CALLERS = 300


def ask_all(stack: SimpleNamespace, igsid: str, callers: int = CALLERS) -> list[Any]:
    """*callers* at once ask for one cold person, half of them each instance."""
    services = (stack.one, stack.other)
    return all_at_once(
        [
            lambda service=services[n % 2]: service.get(f"/profiles/{igsid}")
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
        ({"delay": 1.5, "error": {"code": 2, "status": 503}}, 502, "graph_unavailable"),
        ({"wire": "hang"}, 504, "graph_timeout"),
    ],
    ids=["profile", "consent", "gone", "failure", "timeout"],
)
def test_300_cold_callers_of_two_instances_cause_one_call(
    stack, script, status, code
) -> None:
    """Whatever Meta answers, everybody gets that, and Meta is asked once."""
    igsid = crowd(1)
    stack.meta.person(igsid, **script)

    answers = ask_all(stack, igsid)
    stack.meta.order("release")

    assert Counter(answer.status_code for answer in answers) == {status: CALLERS}
    assert {answer.json().get("code") for answer in answers} == {code}
    assert stack.meta.calls(igsid) == 1


def test_callers_say_how_their_answer_came_about(stack) -> None:
    """One led; the others were collapsed into its call, or came after it."""
    igsid = crowd(2)
    stack.meta.person(igsid, delay=1.0)

    answers = ask_all(stack, igsid, 40)

    kinds = Counter(
        answer.headers["Cache-Status"].split("; ", 1)[1] for answer in answers
    )
    assert kinds["fwd=uri-miss; stored"] == 1
    assert kinds["fwd=uri-miss; collapsed"] > 0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"delay": 1.5}, {"fwd=request; stored", "fwd=request; collapsed"}),
        (
            {"delay": 1.5, "error": {"code": 2, "status": 503}},
            {"fwd=stale; detail=graph_unavailable"},
        ),
    ],
    ids=["profile", "failure"],
)
def test_100_callers_who_want_it_new_cause_one_call(stack, script, said) -> None:
    """What is known and what has failed before is no answer; one flight is, for all."""
    igsid = crowd(3)
    stack.one.get(f"/profiles/{igsid}")
    stack.other.get(f"/profiles/{igsid}")
    stack.meta.person(igsid, **script)

    answers = all_at_once(
        [
            lambda service=(stack.one, stack.other)[n % 2]: service.get(
                f"/profiles/{igsid}", headers={"Cache-Control": "no-cache"}
            )
            for n in range(100)
        ]
    )

    kinds = {answer.headers["Cache-Status"].split("; ", 1)[1] for answer in answers}
    assert {answer.status_code for answer in answers} == {200}
    assert kinds == said
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
def test_operators_who_force_a_fetch_together_cause_one_call(
    stack, script, status
) -> None:
    """At two instances, though a profile is stored that everybody may have."""
    igsid = crowd(7)
    stack.one.get(f"/profiles/{igsid}")
    stack.meta.person(igsid, **script)
    services = (stack.one, stack.other)

    answers = all_at_once(
        [
            lambda service=services[n % 2]: service.request(
                "POST", f"/admin/profiles/{igsid}/refresh"
            )
            for n in range(20)
        ]
    )

    assert Counter(answer.status_code for answer in answers) == {status: 20}
    assert stack.meta.calls(igsid) == 1 + 1


def test_pages_and_single_callers_share_one_call_for_each(stack) -> None:
    """Two pages that overlap, of two instances, and somebody who asks for one alone."""
    people = [crowd(n) for n in range(10, 40)]
    for igsid in people:
        stack.meta.person(igsid, delay=1.0)
    pages = [people[:20], people[10:], people[::-1]]

    answers = all_at_once(
        [
            lambda service=(stack.one, stack.other)[n % 2], page=page: service.get(
                f"/profiles?ids={','.join(page)}"
            )
            for n, page in enumerate(pages)
        ]
        + [lambda: stack.other.get(f"/profiles/{people[0]}")]
    )

    assert [list(page.json()["profiles"]) for page in answers[:3]] == pages
    assert answers[3].json()["id"] == people[0]
    assert [stack.meta.calls(igsid) for igsid in people] == [1] * len(people)


@pytest.mark.parametrize("how", ["erase", "flush"])
def test_what_is_learned_before_an_erase_is_not_answered_after_it(stack, how) -> None:
    """A fetch under way writes nothing back, and its callers get later knowledge."""
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
        # What Meta said to the call that hangs is what it knew when asked.
        after = stack.other.get(f"/profiles/{ADA}").json()["name"]
        stack.meta.order("release")
        assert after == "After"

    names = all_at_once([remove, *[ask(stack.one)] * 5, *[ask(stack.other)] * 5])

    assert set(names[1:]) == {"After"}
    assert stack.one.get(f"/profiles/{ADA}").json()["name"] == "After"
    assert stack.meta.calls(ADA) == 2


def test_an_erased_refusal_is_not_answered_by_the_call_under_way(stack) -> None:
    """The same for a refusal: consent can have been given meanwhile."""
    stack.meta.person(BEN, error={"code": 230, "status": 403}, wire="hang", times=1)

    def heal() -> None:
        stack.meta.await_calls(BEN, 1)
        stack.meta.person(BEN, profile={"name": "Ben"})
        stack.other.request("DELETE", f"/admin/profiles/{BEN}")
        stack.meta.order("release")

    answers = all_at_once([heal, lambda: stack.one.get(f"/profiles/{BEN}")])

    assert answers[1].status_code == 200
    assert stack.meta.calls(BEN) == 2


def test_two_instances_on_one_store_act_as_one(stack) -> None:
    """What one has fetched the other serves; what one erases the other asks again."""
    first = stack.one.get(f"/profiles/{ADA}")
    second = stack.other.get(f"/profiles/{ADA}")
    erased = stack.one.request("DELETE", f"/admin/profiles/{ADA}").json()
    third = stack.other.get(f"/profiles/{ADA}")

    assert second.json() == first.json()
    assert second.headers["Cache-Status"].startswith("profile-proxy; hit; ttl=")
    assert erased["was_there"]["entry"] is True
    assert third.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"
    assert stack.meta.calls(ADA) == 2
