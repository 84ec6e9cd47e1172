"""Each of the simulated people, as a caller meets them."""

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
    ],
)
def test_each_person_is_answered_as_meta_means_it(stack, igsid, status, code) -> None:
    """The outcome, and one call for two requests unless it is a failure's note."""
    first = stack.service.get(f"/profiles/{igsid}")
    second = stack.service.get(f"/profiles/{igsid}")

    assert first.status_code == second.status_code == status
    assert first.json().get("code") == second.json().get("code") == code
    assert stack.meta.calls(igsid) == 1


def test_a_name_comes_through_as_the_person_writes_it(stack) -> None:
    """Meta escapes to ASCII; we answer in UTF-8."""
    answer = stack.service.get(f"/profiles/{EVE}")

    assert "🌸" in answer.json()["name"]
    assert "🌸".encode() in answer.content


def test_somebody_without_a_picture_has_null_there(stack) -> None:
    """Null, and not missing: a caller finds every field it asked for."""
    profile = stack.service.get(f"/profiles/{FINN}").json()

    assert profile["profile_pic"] is None
    assert profile["name"] is None
    assert profile["picture_expires_at"] is None


def test_a_picture_about_to_die_shortens_the_entry(stack) -> None:
    """Half of what is left, and no stale phase; Redis forgets it as soon."""
    answer = stack.service.get(f"/profiles/{GUS}")

    life = int(answer.headers["Cache-Control"].rpartition("=")[2])
    assert 35 <= life <= 45
    assert stack.redis.pttl(f"pp:e:{{default:{GUS}}}") <= 45_000


def test_the_picture_that_is_answered_is_alive(stack) -> None:
    """The link is passed on unchanged: any change would break its signature."""
    link = stack.service.get(f"/profiles/{ADA}").json()["profile_pic"]

    assert requests.get(link, timeout=5).status_code == 200


def test_a_slow_meta_is_waited_for_until_the_deadline(stack) -> None:
    """Hana takes 2 s, the deadline is 1.5 s."""
    started = time.monotonic()
    answer = stack.service.get(f"/profiles/{HANA}")

    assert (answer.status_code, answer.json()["code"]) == (504, "graph_timeout")
    assert time.monotonic() - started < 2.0


def test_a_failure_is_forgotten_after_a_second(stack) -> None:
    """Ivo fails every other call: the next caller but one gets his profile."""
    failed = stack.service.get(f"/profiles/{IVO}")
    key = f"pp:n:{{default:{IVO}}}"
    assert 0 < stack.redis.pttl(key) <= 1000
    stack.redis.delete(key)
    answered = stack.service.get(f"/profiles/{IVO}")

    assert (failed.status_code, answered.status_code) == (502, 200)


def test_the_call_is_made_as_meta_wants_it(stack) -> None:
    """The token in a header, the proof in the query, the seven fields."""
    stack.service.get(f"/profiles/{ADA}")

    (call,) = stack.meta.overview()["calls"]
    assert call["authorization"] == "bearer"
    assert call["proof"] is True
    assert len(call["fields"]) == 7
    assert call["path"] == f"/v25.0/{ADA}"


def test_an_account_without_pictures_is_asked_again_without_them(stack) -> None:
    """Once; from then on the field is left out from the start."""
    from tests.helpers.processes import Service

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


def test_a_token_that_changes_in_its_file_is_used(stack) -> None:
    """No restart: the next call after two seconds bears the new one."""
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
