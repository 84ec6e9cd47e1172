"""Every recorded reply of Meta's, played to the service, twice in a row."""

from __future__ import annotations

import pytest

from tests.helpers.processes import open_gates
from tests.helpers.recorded_replies import REPLIES
from tests.helpers.stack import Stack

KINDS = "graph_error", "graph_success", "graph_html", "graph_batch"
PLAYED = {name: reply for name, reply in REPLIES.items() if reply["kind"] in KINDS}

# suggested_class of a recorded reply: our code, whether it is kept, calls to Meta
# for two requests of which the second comes when note and gate of the first are gone.
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
    # Asked again without the field, which this reply refuses just the same.
    "bad_field": ("permission_missing", False, 4),
}


def play(stack: Stack, igsid: str, reply: dict) -> None:
    wire = (
        {"raw": reply["body"]}
        if isinstance(reply["body"], str)
        else {"body": reply["body"]}
    )
    stack.meta.person(igsid, status=reply["status"], headers=reply["headers"], **wire)


@pytest.mark.parametrize("name", PLAYED)
def test_a_recorded_reply_means_what_the_table_says_twice(stack, name) -> None:
    """The same answer both times, kept or not, with the right number of calls."""
    reply = PLAYED[name]
    code, kept, calls = EXPECTED[reply["suggested_class"]]
    body = reply["body"]
    own_id = body.get("id") if isinstance(body, dict) else None
    igsid = own_id or "1254001234567890"
    play(stack, igsid, reply)

    first = stack.service.get(f"/profiles/{igsid}")
    stack.redis.delete(f"pp:n:{{default:{igsid}}}")
    open_gates(stack.redis)
    second = stack.service.get(f"/profiles/{igsid}")

    assert first.json().get("code") == second.json().get("code") == code
    assert second.headers["Cache-Status"].startswith("profile-proxy; hit") is kept
    assert stack.meta.calls(igsid) == calls
    assert bool(list(stack.redis.scan_iter("pp:e:*"))) is kept
