"""The routes for operators: inspect, refresh, erase, flush, stats."""

from __future__ import annotations

import json
import logging

import pytest

from proxy.domain.failures import Throttled, TokenRejected
from proxy.domain.profile import GraphError, Igsid, Reason
from proxy.web.admin import FLUSH_RULES, FlushOrder
from tests.helpers.builders import ADA, HOUR, a_profile, a_refusal

BEN = Igsid("1254001234567891")
CLEO = Igsid("1254001234567892")


@pytest.fixture
def three(client, graph):
    """Ada's profile, Ben's refusal and Cleo's, all stored."""
    graph.outcomes[ADA] = a_profile()
    graph.outcomes[BEN] = a_refusal(igsid=BEN, reason=Reason.CONSENT_REQUIRED)
    graph.outcomes[CLEO] = a_refusal(igsid=CLEO, reason=Reason.NOT_FOUND)
    for igsid in (ADA, BEN, CLEO):
        client.get(f"/profiles/{igsid}")


def entries_in(store) -> int:
    return len(store.keys("pp:e:*"))


def flush(client, **order):
    return client.post("/admin/flush", json=order)


def test_inspect_returns_the_bounds_without_a_call_to_meta(
    client, graph, clock
) -> None:
    """What is stored and until when, but no name and no picture."""
    graph.outcomes[ADA] = a_profile(name="Ada")
    client.get(f"/profiles/{ADA}")
    clock.now += HOUR

    answer = client.get(f"/admin/profiles/{ADA}")

    entry = answer.json["entry"]
    assert (entry["outcome"], entry["freshness"]) == ("profile", "stale")
    assert entry["fetched_at"] < entry["fresh_until"] < entry["usable_until"]
    assert entry["fresh_until_by"] == "profile_ttl"
    assert entry["usable_until_by"] == "stale_grace"
    assert answer.json["lease_held"] is False
    assert "Ada" not in answer.text
    assert graph.calls == 1


def test_inspect_returns_metas_codes_of_a_refusal(client, three) -> None:
    """An operator searches Meta's documentation for them."""
    entry = client.get(f"/admin/profiles/{BEN}").json["entry"]

    assert entry["outcome"] == "consent_required"
    assert entry["graph"]["code"] == 230


def test_inspect_returns_why_a_refresh_has_failed(
    client, graph, clock, background
) -> None:
    """Its note lives for a second, but the entry keeps Meta's codes.

    A dead token is about us, so it does not count against the person.
    """
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    graph.outcomes[ADA] = TokenRejected(GraphError(190, 463, "tr"))
    clock.now += HOUR
    client.get(f"/profiles/{ADA}")
    background.run()

    entry = client.get(f"/admin/profiles/{ADA}").json["entry"]

    assert (entry["outcome"], entry["failed_refreshes"]) == ("profile", 0)
    assert entry["graph"] == {"code": 190, "subcode": 463, "fbtrace_id": "tr"}


def test_inspect_of_an_unknown_person_is_200(client, graph) -> None:
    """ "Nothing stored" is a valid result."""
    answer = client.get(f"/admin/profiles/{ADA}")

    assert answer.status_code == 200
    assert answer.json == {
        "id": ADA,
        "entry": None,
        "lease_held": False,
        "last_failure": None,
    }


def test_inspect_returns_how_the_last_flight_failed(client, graph) -> None:
    """For the second in which its followers share the failure."""
    graph.outcomes[ADA] = TokenRejected(GraphError(190, 463, "tr"))
    client.get(f"/profiles/{ADA}")

    failure = client.get(f"/admin/profiles/{ADA}").json["last_failure"]

    assert failure["code"] == "token_rejected"
    assert failure["graph"] == {"code": 190, "subcode": 463, "fbtrace_id": "tr"}


def test_refresh_asks_meta_and_returns_the_new_entry(client, graph, clock) -> None:
    """As inspect does; it needs no body."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    clock.now += 100
    graph.outcomes[ADA] = a_refusal()

    answer = client.post(f"/admin/profiles/{ADA}/refresh")

    assert answer.status_code == 200
    assert answer.json["entry"]["outcome"] == "consent_required"
    assert answer.json == client.get(f"/admin/profiles/{ADA}").json
    assert answer.headers["Cache-Control"] == "no-store"
    assert graph.calls == 2


def test_refresh_returns_its_failure(client, graph, caplog) -> None:
    """It is audited as a failure, and the stored entry stays."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    graph.outcomes[ADA] = TokenRejected(GraphError(190, 463, "tr"))
    caplog.set_level(logging.INFO)

    answer = client.post(f"/admin/profiles/{ADA}/refresh")

    (line,) = audit_lines(caplog)
    assert (answer.status_code, answer.json["code"]) == (502, "token_rejected")
    assert (line.action, line.result) == ("refresh", "token_rejected")
    assert client.get(f"/profiles/{ADA}").status_code == 200


def test_erase_leaves_nothing_and_returns_a_receipt(client, graph, store) -> None:
    """The receipt lists what was stored; the next GET asks Meta again."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")

    answer = client.delete(f"/admin/profiles/{ADA}")

    assert answer.status_code == 200
    assert answer.json["igsid"] == ADA
    assert answer.json["erased_at"].endswith("Z")
    found = [name for name, was_there in answer.json["was_there"].items() if was_there]
    assert found == ["entry", "witness"]
    assert not store.keys(f"*{ADA}*")
    client.get(f"/profiles/{ADA}")
    assert graph.calls == 2


def test_audit_line_of_an_erasure_has_the_receipts_id(client, caplog) -> None:
    """An erasure can be matched to its line, which names no person."""
    caplog.set_level(logging.INFO)

    receipt = client.delete(f"/admin/profiles/{ADA}").json["id"]

    (line,) = audit_lines(caplog)
    assert (line.id, line.action, line.by) == (receipt, "erase", "(local)")
    assert (line.person, line.result) == (f"...{ADA[-4:]}", "done")


def test_receipt_and_audit_line_say_where_and_by_whom(client, graph, caplog) -> None:
    """So that it can be seen later what an erasure was a proof of."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    caplog.set_level(logging.INFO)

    receipt = client.delete(f"/admin/profiles/{ADA}").json

    (line,) = audit_lines(caplog)
    for name in ("id", "page", "key_prefix", "by", "was_there"):
        assert getattr(line, name) == receipt[name]
    assert (line.page, line.key_prefix, line.by) == ("default", "pp", "(local)")


def test_receipt_of_an_erasure_that_found_nothing_says_so(client) -> None:
    """It is 200: an erasure may be repeated until its answer arrives."""
    answer = client.delete(f"/admin/profiles/{ADA}")

    assert answer.status_code == 200
    assert answer.json["detail"].startswith("Nothing was stored about this person")


def test_marker_of_a_message_is_in_the_receipt(client, store) -> None:
    """It says that the person has written lately."""
    store.set(f"pp:w:{{default:{ADA}}}", "1", ex=60)

    receipt = client.delete(f"/admin/profiles/{ADA}").json

    assert receipt["was_there"]["marker"] is True
    assert not receipt["detail"].startswith("Nothing")


def audit_lines(caplog):
    return [r for r in caplog.records if r.getMessage() == "operator"]


@pytest.mark.parametrize(
    ("action", "act"),
    [
        ("inspect", lambda client: client.get(f"/admin/profiles/{ADA}")),
        ("refresh", lambda client: client.post(f"/admin/profiles/{ADA}/refresh")),
        ("erase", lambda client: client.delete(f"/admin/profiles/{ADA}")),
        ("flush", lambda client: flush(client, what="all")),
        ("open_gate", lambda client: client.post("/admin/gates/throttled/open")),
    ],
)
def test_failed_action_is_audited(client, server, caplog, action, act) -> None:
    """The store may have failed midway, with half of the work done."""
    caplog.set_level(logging.INFO)
    server.connected = False

    answer = act(client)

    (line,) = audit_lines(caplog)
    assert answer.json["code"] == "store_unavailable"
    assert (line.action, line.result) == (action, "store_unavailable")


@pytest.mark.parametrize(
    ("what", "matched"),
    [
        ("all", 3),
        ("profiles", 1),
        ("refusals", 2),
        ("consent_required", 1),
        ("not_found", 1),
        ("blocked", 0),
        ("unavailable", 0),
    ],
)
def test_flush_removes_only_the_named_entries(
    client, three, store, what, matched
) -> None:
    """Entries only, and no others than asked for."""
    answer = flush(client, what=what)

    assert answer.json == {"matched": matched, "deleted": matched}
    assert entries_in(store) == 3 - matched


def test_flush_dry_run_counts_without_removing(client, three, store) -> None:
    """An operator can check the number first."""
    answer = flush(client, what="all", dry_run=True)

    assert answer.json == {"matched": 3, "deleted": 0}
    assert entries_in(store) == 3


def test_flush_older_than_spares_newer_entries(client, graph, three, clock) -> None:
    """In seconds since the fetch."""
    clock.now += 100
    graph.outcomes[Igsid("99999")] = a_profile(igsid=Igsid("99999"))
    client.get("/profiles/99999")

    answer = flush(client, what="all", older_than=100)

    assert answer.json == {"matched": 3, "deleted": 3}
    assert client.get("/admin/profiles/99999").json["entry"] is not None


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("{", "it is not JSON"),
        ("[]", "it must be an object with the keys what, older_than, page, dry_run"),
        ("{}", "what is missing; it must be one of all, profiles, refusals,"),
        ('{"what": "everything"}', "what must be one of all, profiles, refusals,"),
        ('{"what": 1}', "what must be one of all, profiles, refusals,"),
        ('{"what": "all", "older": 1}', "there is no key 'older'; the keys are what,"),
        ('{"what": "all", "older_than": -1}', "older_than must be a number of seconds"),
        ('{"what": "all", "older_than": "1h"}', "older_than must be a number of"),
        ('{"what": "all", "page": 1}', "page must be the name of a Page"),
        ('{"what": "all", "dry_run": "no"}', "dry_run must be true or false"),
    ],
)
def test_detail_of_an_invalid_flush_says_what_to_send(client, body, detail) -> None:
    """In the words of docs/api.md; the library's are about Python's types."""
    answer = client.post("/admin/flush", data=body, content_type="application/json")

    assert answer.json["detail"].startswith(f"Invalid body: {detail}")


def test_every_key_of_a_flush_has_a_rule() -> None:
    """In their order."""
    assert tuple(FLUSH_RULES) == FlushOrder.__struct_fields__


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 411, "length_required"),
        ("{", 400, "invalid_body"),
        (b'{"what": "\xff"}', 400, "invalid_body"),
        ("[]", 400, "invalid_body"),
        ("null", 400, "invalid_body"),
        ("{}", 400, "invalid_body"),
        ('{"what": "everything"}', 400, "invalid_body"),
        ('{"what": 1}', 400, "invalid_body"),
        ('{"what": "all", "older": 1}', 400, "invalid_body"),
        ('{"what": "all", "page": 1}', 400, "invalid_body"),
        ('{"what": "all", "page": "shop"}', 404, "unknown_page"),
        ('{"what": "all", "page": ""}', 404, "unknown_page"),
        ('{"what": "all", "older_than": -1}', 400, "invalid_body"),
        ('{"what": "all", "older_than": "1h"}', 400, "invalid_body"),
        ('{"what": "all", "dry_run": "false"}', 400, "invalid_body"),
        ("[" * 30000, 400, "invalid_body"),
        ('{"what": "all", "x": "' + "x" * 70000 + '"}', 413, "body_too_large"),
    ],
)
def test_flush_with_an_invalid_body_removes_nothing(
    client, three, store, body, status, code
) -> None:
    """Its meaning is not guessed; the problem names the invalid part."""
    answer = client.post("/admin/flush", data=body, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert entries_in(store) == 3


def test_flush_names_an_unknown_member_of_the_body(client) -> None:
    """An operator who wrote ``older`` needs exactly that hint."""
    answer = flush(client, what="all", older=1)

    assert "older" in answer.json["detail"]
    assert "GET /openapi.yaml" in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "connection"), [("/admin/flush", None), ("/admin/unknown", "close")]
)
def test_unread_body_ends_the_connection_with_notice(client, path, connection) -> None:
    """The server closes it then, and a client not told would lose a request."""
    answer = client.post(path, json={"what": "all"})

    assert answer.headers.get("Connection") == connection
    assert ("Keep-Alive" in answer.headers) == (connection is None)


def test_flush_requires_a_json_media_type(client, three, store) -> None:
    """A form, which a page of another site can send, is rejected."""
    answer = client.post("/admin/flush", data=json.dumps({"what": "all"}))

    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
    assert entries_in(store) == 3


def test_stats_count_the_calls_that_were_saved(client, three) -> None:
    """Three people were fetched; every later hit saves a call."""
    for _ in range(2):
        client.get(f"/profiles/{ADA}")
        client.get(f"/v25.0/{BEN}")

    instance = client.get("/admin/stats").json["instance"]

    assert instance["outcomes"]["profile"] == 3
    assert instance["outcomes"]["consent_required"] == 3
    assert (instance["sources"]["fetched"], instance["sources"]["hit"]) == (3, 4)
    assert instance["hit_ratio"] == round(4 / 7, 4)
    assert (instance["calls"], instance["calls_saved"]) == (3, 4)


def test_admin_responses_are_not_cacheable(client) -> None:
    """They are true only now."""
    answers = [
        client.get(f"/admin/profiles/{ADA}"),
        client.delete(f"/admin/profiles/{ADA}"),
        client.get("/admin/stats"),
        flush(client, what="all"),
    ]

    assert {a.headers["Cache-Control"] for a in answers} == {"no-store"}


@pytest.mark.parametrize("igsid", ["1", "abc12", "1" * 26])
def test_admin_routes_reject_an_invalid_igsid(client, store, igsid) -> None:
    """Otherwise it would become part of a key."""
    answers = [
        client.get(f"/admin/profiles/{igsid}"),
        client.post(f"/admin/profiles/{igsid}/refresh"),
        client.delete(f"/admin/profiles/{igsid}"),
    ]

    assert {a.json["code"] for a in answers} == {"invalid_igsid"}


def test_opened_gate_lets_the_next_caller_ask(client, graph, caplog) -> None:
    """The answer and the audit line have what was closed, and for how long."""
    caplog.set_level(logging.INFO)
    graph.outcomes[ADA] = Throttled(retry_after=300.0)
    client.get(f"/profiles/{ADA}")
    graph.outcomes[Igsid("99999")] = a_profile(igsid=Igsid("99999"))
    stopped = client.get("/profiles/99999")

    opened = client.post("/admin/gates/throttled/open")
    again = client.post("/admin/gates/throttled/open?page=default")

    line, _ = audit_lines(caplog)
    assert stopped.status_code == 503
    assert opened.json["page"] == "default"
    assert opened.json["cause"] == "throttled"
    assert 290 < opened.json["closed_for"] <= 300
    assert opened.json["failures"] == 1
    assert opened.headers["Cache-Control"] == "no-store"
    assert again.json == opened.json | {"closed_for": 0, "failures": 0}
    assert (line.action, line.cause, line.result) == ("open_gate", "throttled", "done")
    assert (line.page, line.failures) == ("default", 1)
    assert client.get("/admin/stats").json["gates"]["throttled"]["closed_for"] == 0


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/admin/gates/overloaded/open", "unknown_cause"),
        ("/admin/gates/Throttled/open", "unknown_cause"),
        ("/admin/gates/throttled/open?page=shop", "unknown_page"),
        ("/admin/gates/throttled/open?page=", "unknown_page"),
    ],
)
def test_gate_that_is_not_there_is_404(client, caplog, path, code) -> None:
    """Nothing is opened; the attempt at a known cause is audited, as a flush is."""
    caplog.set_level(logging.INFO)

    answer = client.post(path)

    assert (answer.status_code, answer.json["code"]) == (404, code)
    results = [line.result for line in audit_lines(caplog)]
    assert results == [code] * (code == "unknown_page")
    if code == "unknown_cause":
        assert (
            "throttled, token_rejected, permission, unavailable"
            in answer.json["detail"]
        )
