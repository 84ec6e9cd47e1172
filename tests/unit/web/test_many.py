"""GET /profiles?ids=...: a page of people, and what is wrong with some of them."""

from __future__ import annotations

import pytest

from proxy.domain.failures import Throttled
from proxy.domain.profile import Igsid, Reason
from tests.helpers.builders import ADA, a_profile, a_refusal

BEN, CLEO, DOV = (Igsid(f"125400123456789{n}") for n in (1, 2, 3))


@pytest.fixture
def page(client, graph):
    graph.outcomes[ADA] = a_profile()
    graph.outcomes[BEN] = a_refusal(igsid=BEN)
    graph.outcomes[CLEO] = Throttled(retry_after=9.5)
    graph.outcomes[DOV] = a_refusal(igsid=DOV, reason=Reason.NOT_FOUND)

    def ask(query: str, **options):
        return client.get(f"/profiles?{query}", **options)

    return ask


def test_each_is_among_the_profiles_or_the_problems(page, client) -> None:
    """In the words that they have when asked for alone."""
    answer = page(f"ids={BEN},{ADA},{DOV}")
    alone = {igsid: client.get(f"/profiles/{igsid}").json for igsid in (ADA, BEN, DOV)}

    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["profiles"] == {ADA: alone[ADA]}
    assert list(answer.json["problems"]) == [BEN, DOV]
    assert answer.json["problems"] == {BEN: alone[BEN], DOV: alone[DOV]}


def test_problems_only_are_still_a_page(page, graph) -> None:
    """A failure has its code and its wait, and what is no igsid asks nobody."""
    answer = page(f"ids={CLEO},12x")

    assert (answer.status_code, answer.json["profiles"]) == (200, {})
    failed, invalid = answer.json["problems"][CLEO], answer.json["problems"]["12x"]
    assert (failed["code"], failed["retry_after"]) == ("throttled", 10)
    assert failed["igsid"] == CLEO
    assert (invalid["code"], invalid["status"]) == ("invalid_igsid", 400)
    assert "igsid" not in invalid
    assert graph.asked == [CLEO]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (f"ids={BEN},{DOV},{BEN},{BEN}", [BEN, DOV]),
        (f"ids={BEN}%2C{DOV}", [BEN, DOV]),
        (f"ids=,{BEN},", ["", BEN]),
        (f"ids=%22%5C%F0%9F%8C%B8%ED%A0%80,{BEN}", ['"\\🌸%ED%A0%80', BEN]),
    ],
)
def test_each_stands_there_once_in_order(page, query, ids) -> None:
    """Also what is no igsid, as it was sent, however odd."""
    assert list(page(query).json["problems"]) == ids


def test_a_hundred_may_be_asked_for(page, graph) -> None:
    """Of different ones: who stands there twice counts once."""
    people = [Igsid(f"77000{n}") for n in range(100)]
    for igsid in people:
        graph.outcomes[igsid] = a_refusal(igsid=igsid)

    answer = page(f"ids={','.join(people + people)}")

    assert list(answer.json["problems"]) == people
    assert sorted(graph.asked) == sorted(people)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "ids=",
        "id=12345",
        "ids=12345&ids=12346",
        f"ids={','.join(map(str, range(101)))}",
    ],
    ids=["none", "empty", "another", "two", "too many"],
)
def test_no_ids_or_too_many_are_refused(page, graph, query) -> None:
    answer = page(query)

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_ids")
    assert graph.calls == 0


def test_fields_narrow_each(page) -> None:
    """And a typing mistake is the page's, not a person's."""
    serialize = page(f"ids={ADA}&fields=name").json["profiles"][ADA]

    assert list(serialize) == ["id", "name", "fetched_at", "picture_expires_at"]
    assert page(f"ids={ADA}&fields=nme").json["code"] == "invalid_fields"


def test_directives_hold_for_all(page, graph) -> None:
    """only-if-cached: who is not stored is a problem, and nobody is asked."""
    page(f"ids={ADA}")

    answer = page(f"ids={ADA},{BEN}", headers={"Cache-Control": "only-if-cached"})

    assert list(answer.json["profiles"]) == [ADA]
    assert answer.json["problems"][BEN]["code"] == "not_cached"
    assert graph.asked == [ADA]


def test_only_who_may_read_is_answered(page) -> None:
    answer = page(f"ids={ADA}", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json["code"]) == (403, "not_local")


def test_a_page_has_a_head(client, page) -> None:
    page(f"ids={ADA}")

    head = client.head(f"/profiles?ids={ADA}")

    assert (head.status_code, head.data) == (200, b"")
    assert (
        head.headers["Content-Length"] == page(f"ids={ADA}").headers["Content-Length"]
    )
