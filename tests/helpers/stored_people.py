"""People as a store holds them, and the keys that Redis has of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import redis

from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import GraphError, Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Snapshot

NOW = 1_800_000_000.0
MINUTE = 60.0
HOUR = 3600.0

ADA = Igsid("1254001000000001")
BEN = Igsid("1254001000000002")
OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"

SAID = GraphError(230, 33, "AbCd_-0123")
NOTHING = Snapshot(None, None, None)

PICTURE = (
    "https://scontent-fra5-1.cdninstagram.com/v/t51.2885-19/"
    "403102347_1037281734017823_5543918284710943521_n.jpg"
    "?stp=dst-jpg_s206x206&oh=00_AfB2q9cVxkQeZl&oe=6B4A3F80"
)


def a_profile(igsid: Igsid = ADA, **changes: Any) -> Profile:
    profile = Profile(
        igsid=igsid,
        name="Ada Lovelace",
        username="ada.lovelace",
        profile_pic=PICTURE,
        is_verified_user=False,
        follower_count=1815,
        is_user_follow_business=True,
        is_business_follow_user=False,
        picture_expires_at=1_800_000_384.0,
    )
    return replace(profile, **changes)


def a_profile_of_nulls(igsid: Igsid = ADA) -> Profile:
    return Profile(igsid, None, None, None, None, None, None, None, None)


def a_refusal(
    reason: Reason = Reason.CONSENT_REQUIRED,
    said: GraphError = SAID,
    igsid: Igsid = ADA,
) -> Refusal:
    return Refusal(igsid, reason, said)


def an_entry(outcome: Outcome | None = None, *, usable_for: float = HOUR) -> Entry:
    outcome = outcome or a_profile()
    return Entry(outcome, NOW, NOW + usable_for / 2, NOW + usable_for)


def key(kind: str, igsid: Igsid = ADA) -> str:
    """A person's key as it stands in Redis: *kind* is ``e``, ``l`` or ``n``."""
    return f"pp:{kind}:{{default:{igsid}}}"


def crowd(size: int) -> list[Igsid]:
    return [Igsid(f"1254002{number:09d}") for number in range(size)]


def store(entries: EntryStore, entry: Entry) -> None:
    """Take the lease and put *entry*, as a whole flight would."""
    igsid = entry.outcome.igsid
    entries.take(igsid, OURS, MINUTE)
    assert entries.put(igsid, entry, OURS, NOW)


def fail(entries: EntryStore, failure: LookupFailure, igsid: Igsid = ADA) -> None:
    """Take the lease and leave a note, as a flight that fails would."""
    entries.take(igsid, OURS, MINUTE)
    assert entries.fail(igsid, failure, OURS, now=NOW)


def plant(raw: redis.Redis, whole_key: str, value: object) -> None:
    """Store a value that our code would not store there."""
    raw.delete(whole_key)
    match value:
        case bytes():
            raw.set(whole_key, value)
        case list():
            raw.rpush(whole_key, *value)
        case dict():
            raw.hset(whole_key, mapping=value)
        case set():
            raw.sadd(whole_key, *value)
    raw.pexpire(whole_key, 60_000)


def keys_in(raw: redis.Redis) -> set[str]:
    return {whole_key.decode() for whole_key in raw.scan_iter(count=1000)}


def server_milliseconds(raw: redis.Redis) -> int:
    seconds, microseconds = raw.time()
    return int(seconds * 1000 + microseconds // 1000)


def poll_until(has_ended: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if has_ended():
            return
    raise AssertionError("it did not end")
