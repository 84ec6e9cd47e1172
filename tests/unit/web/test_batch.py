"""GET /profiles?ids=...: a batch of profiles and problems."""

from __future__ import annotations

import pytest

from proxy.domain.failures import Throttled
from proxy.domain.profile import Igsid, Reason
from tests.helpers.builders import ADA, a_profile, a_refusal

BEN, CLEO, DOV = (Igsid(f"125400123456789{n}") for n in (1, 2, 3))


@pytest.fixture
def ask(client, graph):
    graph.outcomes[ADA] = a_profile()
    graph.outcomes[BEN] = a_refusal(igsid=BEN)
    graph.outcomes[CLEO] = Throttled(retry_after=9.5)
    graph.outcomes[DOV] = a_refusal(igsid=DOV, reason=Reason.NOT_FOUND)

    def ask(query: str, **options):
        return client.get(f"/profiles?{query}", **options)

    return ask


def test_batch_has_a_profile_or_a_problem_for_each_id(ask, client) -> None:
    """Each is the same as in a request for one person."""
    answer = ask(f"ids={BEN},{ADA},{DOV}")
    alone = {igsid: client.get(f"/profiles/{igsid}").json for igsid in (ADA, BEN, DOV)}

    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["profiles"] == {ADA: alone[ADA]}
    assert list(answer.json["problems"]) == [BEN, DOV]
    assert answer.json["problems"] == {BEN: alone[BEN], DOV: alone[DOV]}


def test_batch_of_problems_is_200(ask, graph) -> None:
    """A failure has code and retry_after; an invalid igsid causes no call to Meta."""
    answer = ask(f"ids={CLEO},12x")

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
        (f"ids={BEN}&ids={DOV}", [BEN, DOV]),
        (f"ids={BEN},{DOV}&ids={BEN},12x", [BEN, DOV, "12x"]),
        (f"ids=,{BEN},&ids=", [BEN]),
        (f"ids={BEN},%20{DOV}%09,+,+12x+", [BEN, DOV, "12x"]),
        (f"ids=%22%5C%F0%9F%8C%B8%ED%A0%80,{BEN}", ['"\\🌸%ED%A0%80', BEN]),
    ],
)
def test_batch_has_each_id_once_in_the_order_of_the_request(ask, query, ids) -> None:
    """By comma, repeated or both; invalid ids too, without the blanks around them."""
    assert list(ask(query).json["problems"]) == ids


def test_batch_may_have_100_different_ids(ask, graph) -> None:
    """A repeated id counts once."""
    people = [Igsid(f"77000{n}") for n in range(100)]
    for igsid in people:
        graph.outcomes[igsid] = a_refusal(igsid=igsid)

    answer = ask(f"ids={','.join(people + people)}")

    assert list(answer.json["problems"]) == people
    assert sorted(graph.asked) == sorted(people)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", "no id"),
        ("ids=", "no id"),
        ("ids=,%20,&ids=", "no id"),
        ("id=12345", "no id"),
        (f"ids={','.join(map(str, range(101)))}", "101 different ids"),
        ("&".join(f"ids={n},{n}" for n in range(250)), "250 different ids"),
    ],
    ids=["none", "empty", "blanks", "another", "101", "250 twice"],
)
def test_batch_without_ids_or_with_over_100_says_how_many(
    ask, graph, query, number
) -> None:
    answer = ask(query)

    assert (answer.status_code, answer.json["code"]) == (400, "invalid_ids")
    assert number in answer.json["detail"]
    assert "1 to 100" in answer.json["detail"]
    assert graph.calls == 0


@pytest.mark.parametrize("name", ["ids[]", "ids%5B%5D", "ids[0]"])
def test_ids_in_brackets_are_told_the_spelling(ask, graph, name) -> None:
    """As axios and PHP send a list by default; also beside ids that are read."""
    for query in (f"{name}={ADA}", f"ids={ADA}&{name}={BEN}"):
        answer = ask(query)

        assert (answer.status_code, answer.json["code"]) == (400, "invalid_ids")
        assert "ids=<igsid>&ids=<igsid>" in answer.json["detail"]
    assert graph.calls == 0


def test_batch_fields_apply_to_each_profile(ask) -> None:
    """An unknown field is a problem of the batch, not of a person."""
    selected = ask(f"ids={ADA}&fields=name").json["profiles"][ADA]

    assert list(selected) == ["id", "name", "fetched_at", "picture_expires_at"]
    assert ask(f"ids={ADA}&fields=nme").json["code"] == "invalid_fields"
    assert ask(f"ids={ADA}&fields[]=name").json["code"] == "invalid_fields"


def test_batch_directives_apply_to_each_id(ask, graph) -> None:
    """With only-if-cached, an uncached person is a problem, and Meta is not asked."""
    ask(f"ids={ADA}")

    answer = ask(f"ids={ADA},{BEN}", headers={"Cache-Control": "only-if-cached"})

    assert list(answer.json["profiles"]) == [ADA]
    assert answer.json["problems"][BEN]["code"] == "not_cached"
    assert graph.asked == [ADA]


def test_batch_needs_the_read_scope(ask) -> None:
    answer = ask(f"ids={ADA}", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json["code"]) == (403, "not_local")


def test_head_of_a_batch_has_no_body(client, ask) -> None:
    ask(f"ids={ADA}")

    head = client.head(f"/profiles?ids={ADA}")

    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == ask(f"ids={ADA}").headers["Content-Length"]
