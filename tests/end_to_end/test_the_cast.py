"""The answer about each of the simulated people."""

from __future__ import annotations

import time

import pytest
import requests

from tests.helpers.processes import (
    ADA,
    BEN,
    CLEO,
    DOV,
    EVE,
    FINN,
    GUS,
    HANA,
    IVO,
    JO,
    KIM,
    LEV,
    MIA,
    Service,
    open_gates,
    wait_until,
)


@pytest.mark.parametrize(
    ("igsid", "status", "code"),
    [
        (ADA, 200, None),
        (BEN, 403, "consent_required"),
        (CLEO, 404, "not_found"),
        (DOV, 403, "blocked"),
        (EVE, 200, None),
        (FINN, 200, None),
        (GUS, 200, None),
        (IVO, 502, "graph_unavailable"),
        (JO, 404, "unavailable"),
        (KIM, 404, "not_found"),
        (LEV, 404, "not_found"),
        (MIA, 200, None),
    ],
)
def test_each_person_has_their_own_outcome(stack, igsid, status, code) -> None:
    """Two requests cost one call: the second gets the entry, or a failure's note."""
    first = stack.service.get(f"/profiles/{igsid}")
    second = stack.service.get(f"/profiles/{igsid}")

    assert first.status_code == second.status_code == status
    assert first.json().get("code") == second.json().get("code") == code
    assert stack.meta.calls(igsid) == 1


def test_name_with_an_emoji_is_answered_in_utf_8(stack) -> None:
    """Meta escapes it to ASCII."""
    answer = stack.service.get(f"/profiles/{EVE}")

    assert "🌸" in answer.json()["name"]
    assert "🌸".encode() in answer.content


def test_missing_picture_is_null(stack) -> None:
    """The field is not left out: a caller finds every field it asked for."""
    profile = stack.service.get(f"/profiles/{FINN}").json()

    assert profile["profile_pic"] is None
    assert profile["name"] is None
    assert profile["picture_expires_at"] is None


def test_picture_in_its_last_hour_shortens_the_entry(stack) -> None:
    """The entry lives half of the time left, without a stale phase, in Redis too."""
    answer = stack.service.get(f"/profiles/{GUS}")

    life = int(answer.headers["Cache-Control"].rpartition("=")[2])
    assert 35 <= life <= 45
    assert stack.redis.pttl(f"pp:e:{{default:{GUS}}}") <= 45_000


def test_picture_link_is_passed_on_unchanged(stack) -> None:
    """It works; any change would break its signature."""
    link = stack.service.get(f"/profiles/{ADA}").json()["profile_pic"]

    assert requests.get(link, timeout=5).status_code == 200


def test_slow_call_ends_at_the_deadline(stack) -> None:
    """Hana takes 2 s; the deadline is 1.5 s."""
    started = time.monotonic()
    answer = stack.service.get(f"/profiles/{HANA}")

    assert (answer.status_code, answer.json()["code"]) == (504, "graph_timeout")
    assert time.monotonic() - started < 2.0


def test_failure_answers_for_one_second(stack) -> None:
    """Every second call about Ivo fails; after the pause a caller gets his profile."""
    failed = stack.service.get(f"/profiles/{IVO}")
    again = stack.service.get(f"/profiles/{IVO}")
    key = f"pp:n:{{default:{IVO}}}"
    left = stack.redis.pttl(key)
    stack.redis.pexpire(key, left - 1000)
    answered = stack.service.get(f"/profiles/{IVO}")

    assert 590_000 < left <= 600_000
    assert (failed.status_code, again.status_code) == (502, 502)
    assert [a.headers["Retry-After"] for a in (failed, again)] == ["1", "1"]
    assert [a.headers["Cache-Status"] for a in (failed, again)] == [
        "profile-proxy; fwd=uri-miss; detail=graph_unavailable",
        "profile-proxy; detail=graph_unavailable",
    ]
    assert again.json()["detail"].endswith("Meta was not asked.")
    assert answered.status_code == 200


def test_call_to_meta_has_a_bearer_token_and_a_proof(stack) -> None:
    """The token is in a header, and the proof and the seven fields in the query."""
    stack.service.get(f"/profiles/{ADA}")

    (call,) = stack.meta.overview()["calls"]
    assert call["authorization"] == "bearer"
    assert call["proof"] is True
    assert len(call["fields"]) == 7
    assert call["path"] == f"/v25.0/{ADA}"


def test_refused_picture_field_is_left_out_of_later_calls(stack) -> None:
    """The first person costs a second call; later ones do not."""
    stack.meta.order("fields", nonexisting=["profile_pic"])
    service = Service(**stack.settings)
    try:
        first = service.get(f"/profiles/{ADA}")
        second = service.get(f"/profiles/{EVE}")
    finally:
        service.stop()

    assert first.status_code == second.status_code == 200
    assert first.json()["profile_pic"] is None
    assert (stack.meta.calls(ADA), stack.meta.calls(EVE)) == (2, 1)


def test_token_is_read_again_after_its_file_has_changed(stack) -> None:
    """Within two seconds, without a restart."""
    stack.meta.order("token", value="EAANEWTOKEN")
    rejected = stack.service.get(f"/profiles/{ADA}")
    old = stack.token_file.read_text()
    stack.token_file.write_text("EAANEWTOKEN\n")

    def is_answered(igsid: str) -> bool:
        return stack.service.get(f"/profiles/{igsid}").status_code == 200

    try:
        wait_until(lambda: is_answered(ADA), 6, "the new token is used")
    finally:
        stack.token_file.write_text(old)
        stack.meta.order("reset")
        open_gates(stack.redis)
        wait_until(lambda: is_answered(EVE), 6, "the old token is used again")

    assert rejected.json()["code"] == "token_rejected"
