"""Every recorded reply of Meta, sent to the service twice."""

from __future__ import annotations

import pytest

from tests.helpers.processes import (
    KIM,
    LEV,
    Service,
    SimulatedMeta,
    crowd,
    open_gates,
    wait_until,
)
from tests.helpers.recorded_replies import REPLIES

KINDS = "graph_error", "graph_success", "graph_html", "graph_batch"
PLAYED = {name: reply for name, reply in REPLIES.items() if reply["kind"] in KINDS}

# suggested_class of a recorded reply: our code, whether it is stored, and the calls to
# Meta for two requests. The second comes after the first one's note and gate are gone.
EXPECTED = {
    "ok": (None, True, 1),
    "consent_required": ("consent_required", True, 1),
    "blocked": ("blocked", True, 1),
    "gone": ("not_found", True, 1),
    "not_found_or_permission": ("unavailable", True, 1),
    "token": ("token_rejected", False, 2),
    "permission": ("permission_missing", False, 2),
    "config": ("permission_missing", False, 2),
    "rate_limited": ("throttled", False, 2),
    "transient": ("graph_unavailable", False, 2),
    "batch": ("graph_unavailable", False, 2),
    # Fetched again without the field, and this reply refuses that call too.
    "bad_field": ("permission_missing", False, 4),
}


def play(meta: SimulatedMeta, igsid: str, reply: dict) -> None:
    """Script *reply* as Meta's answer about *igsid*."""
    wire = (
        {"raw": reply["body"]}
        if isinstance(reply["body"], str)
        else {"body": reply["body"]}
    )
    meta.person(igsid, status=reply["status"], headers=reply["headers"], **wire)


@pytest.mark.parametrize("name", PLAYED)
def test_recorded_reply_has_the_outcome_of_its_class_twice(stack, name) -> None:
    """The answer is the same both times, stored or not, for the expected calls."""
    reply = PLAYED[name]
    code, is_stored, calls = EXPECTED[reply["suggested_class"]]
    body = reply["body"]
    own_id = body.get("id") if isinstance(body, dict) else None
    igsid = own_id or "1254001234567890"
    play(stack.meta, igsid, reply)

    first = stack.service.get(f"/profiles/{igsid}")
    stack.redis.delete(f"pp:n:{{default:{igsid}}}")
    open_gates(stack.redis)
    second = stack.service.get(f"/profiles/{igsid}")

    assert first.json().get("code") == second.json().get("code") == code
    assert second.headers["Cache-Status"].startswith("profile-proxy; hit") is is_stored
    assert stack.meta.calls(igsid) == calls
    assert bool(list(stack.redis.scan_iter("pp:e:*"))) is is_stored


@pytest.mark.parametrize(("igsid", "polls"), [(KIM, 20), (LEV, 5)])
def test_person_who_is_gone_closes_no_gate(stack, igsid, polls) -> None:
    """Meta says so by 100/2018001 or 2018218; each poll is a call to Meta."""
    for _ in range(polls):
        answer = stack.service.get(f"/profiles/{igsid}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        stack.redis.delete(*(f"pp:{kind}:{{default:{igsid}}}" for kind in "en"))
        wait_until(lambda: stack.service.near_entries() == 0, 5, "no local copy")

    assert stack.meta.calls(igsid) == polls
    assert stack.service.get(f"/profiles/{crowd(1)}").status_code == 200


def test_listed_subcode_of_a_code_about_the_app_is_a_block(stack) -> None:
    """As Meta documents 200/1545041; 200 by itself stays a lost permission."""
    blocked, plain = crowd(1), crowd(2)
    play(stack.meta, blocked, REPLIES["blocked-200-1545041"])
    play(stack.meta, plain, REPLIES["permission-200-no-type"])
    service = Service(**stack.settings, BLOCKED_CODES="551,200/1545041")
    try:
        answers = [service.get(f"/profiles/{who}") for who in (blocked, blocked, plain)]
        in_metas_shape = service.get(f"/v25.0/{blocked}")
    finally:
        service.stop()

    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        *[(403, "blocked")] * 2,
        (502, "permission_missing"),
    ]
    assert stack.meta.calls(blocked) == 1
    error, recorded = in_metas_shape.json()["error"], REPLIES["blocked-200-1545041"]
    said = recorded["body"]["error"]
    assert in_metas_shape.status_code == recorded["status"]
    assert {key: error[key] for key in said} == said
