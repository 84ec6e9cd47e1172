"""Promises 2, 5 and 8 in the store: our prefix, TTLs, pictures and flushes."""

from __future__ import annotations

import json
import re
import time

from tests.helpers.processes import (
    ADA,
    BEN,
    CLEO,
    DOV,
    EVE,
    FINN,
    GUS,
    IVO,
    JO,
    crowd,
    wait_until,
)

PEOPLE = (ADA, BEN, CLEO, DOV, EVE, FINN, GUS, IVO, JO, crowd(1), crowd(2))


def request_all(stack) -> None:
    for igsid in PEOPLE:
        stack.service.get(f"/profiles/{igsid}")


def test_every_key_has_our_prefix_and_a_ttl(stack) -> None:
    """After requests about every kind of person."""
    request_all(stack)

    ttls = {key: stack.redis.pttl(key) for key in stack.redis.scan_iter()}

    people = [key for key in ttls if re.fullmatch(rb"pp:[en]:\{default:\d+\}", key)]
    assert len(people) == len(PEOPLE)
    assert all(re.fullmatch(rb"pp:[entaudgr]:\{.+\}.*", key) for key in ttls)
    a_day = 25 * 3600 * 1000
    assert all(0 < ttls[key] <= a_day for key in people)
    assert all(0 < ttl <= 400 * a_day for ttl in ttls.values())


def test_entry_ends_before_its_picture_dies(stack) -> None:
    """Redis deletes each entry before the link in it stops working."""
    request_all(stack)

    checked = 0
    for key in stack.redis.scan_iter("pp:e:*"):
        entry = json.loads(stack.redis.get(key))
        *_, dies_at = entry[5] or [None]
        if dies_at is not None:
            checked += 1
            assert time.time() + stack.redis.pttl(key) / 1000 < dies_at
    assert checked >= 4


def test_entry_is_json_with_its_version(stack) -> None:
    """redis-cli and the next version of this service can read it."""
    request_all(stack)

    entries = [stack.redis.get(key) for key in stack.redis.scan_iter("pp:e:*")]

    assert {json.loads(entry)[0] for entry in entries} == {3}
    assert all(entry.startswith(b"[3,") for entry in entries)


def test_flush_of_all_keeps_other_applications_keys(stack) -> None:
    """Even keys that look like ours."""
    theirs = ("session:1", "pp", "ppe:e:{default:12345}", "xpp:e:1", "pp2:e:1")
    for key in theirs:
        stack.redis.set(key, "theirs")
    request_all(stack)
    entries = len(list(stack.redis.scan_iter("pp:e:*")))

    counts = stack.service.flush(what="all")

    assert counts == {"matched": entries, "deleted": entries}
    left = {key.decode() for key in stack.redis.scan_iter()}
    assert {key for key in left if not re.match("pp:[atudgr]:", key)} == set(theirs)


def test_unreadable_entry_is_a_miss_and_is_replaced(stack) -> None:
    """Truncated, of another version, of another person, or of another type."""
    key = f"pp:e:{{default:{ADA}}}"
    stack.service.get(f"/profiles/{ADA}")
    valid = stack.redis.get(key)
    unreadable = [
        valid[: len(valid) // 2],
        valid.replace(b"[3,", b"[99,", 1),
        valid.replace(ADA.encode(), EVE.encode()),
        b"\x80\x04\x95pickle",
        b"{}",
        b"[]",
        b"",
    ]

    for stored in unreadable:
        stack.redis.set(key, stored, ex=60)
        wait_until(
            lambda: stack.service.near_entries() == 0, 5, "the near cache is empty"
        )
        answer = stack.service.get(f"/profiles/{ADA}")
        assert answer.status_code == 200
        assert answer.headers["Cache-Status"] == "profile-proxy; fwd=uri-miss; stored"

    stack.redis.delete(key)
    stack.redis.rpush(key, "a list")
    assert stack.service.get(f"/profiles/{ADA}").status_code == 200
    hit = stack.service.get(f"/profiles/{ADA}")
    assert hit.headers["Cache-Status"].startswith("profile-proxy; hit")
    assert stack.meta.calls(ADA) == 2 + len(unreadable)
