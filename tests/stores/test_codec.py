"""Stored values, decodable or not, on every kind of store."""

import json
import pickle

import pytest
import redis

from proxy.storage.codec import SCHEMA, encode
from proxy.storage.entries import EntryStore
from proxy.storage.flush import Flushed
from proxy.storage.snapshot import Snapshot
from tests.helpers.builders import form_of
from tests.helpers.redis_servers import REAL_STORES
from tests.helpers.stored_people import (
    ADA,
    BEN,
    MINUTE,
    NOTHING,
    NOW,
    OURS,
    a_profile,
    a_refusal,
    an_entry,
    key,
    keys_in,
    plant,
    store,
)


def test_snapshot_builds_the_entry_when_asked(entries: EntryStore) -> None:
    """As it was put, though only the stored entry is decoded at first."""
    store(entries, an_entry())

    assert entries.read(ADA).entry == an_entry()
    assert entries.read(BEN).entry is None


def test_stored_entry_is_json_with_the_version_first(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """No pickle; the version decides how it is decoded; no nulls are at the end."""
    store(entries, an_entry(a_profile(name="Zoë")))

    stored = raw.get(key("e"))

    assert stored.startswith(b"[%d," % SCHEMA)
    assert json.loads(stored)[5][0] == "Zoë"
    assert len(json.loads(stored)) == 6
    assert SCHEMA == 3


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_typical_profile_takes_at_most_700_bytes(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Key, value and what Redis adds, for about 300 bytes of JSON."""
    store(entries, an_entry())

    value_bytes, total_bytes = raw.strlen(key("e")), raw.memory_usage(key("e"))

    assert 280 <= value_bytes <= 400
    assert total_bytes <= 700


VALID = encode(an_entry())
REFUSED = encode(an_entry(a_refusal()))

SCHEMA_2 = (
    b'{"v":2,"id":"1254001000000001","fetched_at":1800000000.0,'
    b'"fresh_until":1800003600.0,"usable_until":1800007200.0,'
    b'"profile":["Ada Lovelace","ada",null,false,1815,true,false,null]}'
)

UNREADABLE = [
    pytest.param(b"", id="empty"),
    pytest.param(VALID[:-1], id="truncated"),
    pytest.param(VALID[:40], id="cut-short"),
    pytest.param(VALID + b"x", id="with-a-byte-behind"),
    pytest.param(VALID.replace(b"Lovelace", b"Lovel\xc3"), id="not-utf-8"),
    pytest.param(VALID.replace(b"Lovelace", rb"\ud83d"), id="half-a-surrogate-pair"),
    pytest.param(VALID.replace(b"[3,", b"[4,", 1), id="newer-version"),
    pytest.param(VALID.replace(b"[3,", b"[2,", 1), id="older-version"),
    pytest.param(SCHEMA_2, id="objects-of-version-2"),
    pytest.param(VALID.replace(b"[3,", b"[", 1), id="no-version"),
    pytest.param(VALID.partition(b",[")[0] + b"]", id="neither"),
    pytest.param(VALID[:-1] + b',"blocked",[551,null,null]]', id="both"),
    pytest.param(REFUSED.partition(b",[230")[0] + b"]", id="no-codes"),
    pytest.param(encode(an_entry(a_profile(BEN))), id="another-person"),
    pytest.param(REFUSED.replace(b"consent", b"x"), id="unknown-reason"),
    pytest.param(VALID.replace(b"18000", b"1e999", 1), id="infinite"),
    pytest.param(VALID.replace(b"1800000000.0", b"1e11", 1), id="beyond-the-calendar"),
    pytest.param(VALID.replace(b"1800000000.0", b"-1.0", 1), id="negative"),
    pytest.param(VALID.replace(b"1800000000.0", b'"1.0"', 1), id="not-a-number"),
    pytest.param(VALID[:-1] + b",null,null,null,-1]", id="negative-count-of-failures"),
    pytest.param(
        VALID[:-1] + b",null,null,null,0,null,1," + b"[" * 99_999, id="nested-too-deep"
    ),
    pytest.param(pickle.dumps({"v": 1}), id="pickle"),
    pytest.param(b"42", id="number"),
    pytest.param(["a", "list"], id="list"),
    pytest.param({"a": "hash"}, id="hash"),
    pytest.param({"a set"}, id="set"),
]


@pytest.mark.parametrize("planted", UNREADABLE)
def test_undecodable_entry_is_a_miss_and_is_overwritten(
    entries: EntryStore, raw: redis.Redis, planted: object
) -> None:
    """By the next flight, without an error on the way."""
    plant(raw, key("e"), planted)

    assert entries.read(ADA) == NOTHING
    assert entries.take(ADA, OURS, MINUTE) == Snapshot(None, OURS, None)
    assert entries.put(ADA, an_entry(), OURS, NOW) is True
    assert entries.read(ADA) == Snapshot(form_of(an_entry()), None, None)


@pytest.mark.parametrize("planted", UNREADABLE)
def test_flush_removes_undecodable_entries(
    entries: EntryStore, raw: redis.Redis, planted: object
) -> None:
    """They are stored, so a flush of all is about them too."""
    plant(raw, key("e", ADA), planted)

    assert entries.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == set()


@pytest.mark.parametrize("kind", ["l", "n"])
@pytest.mark.parametrize("planted", [["a", "list"], {"a": "hash"}, {"a set"}], ids=repr)
def test_lease_or_note_of_another_type_stops_no_flight(
    entries: EntryStore, raw: redis.Redis, kind: str, planted: object
) -> None:
    """It counts as none, and is overwritten or removed."""
    plant(raw, key(kind), planted)

    assert entries.read(ADA) == NOTHING
    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.take(ADA, OURS, MINUTE).lease == OURS
    assert entries.put(ADA, an_entry(), OURS, NOW) is True
    assert keys_in(raw) == {key("e")}


def test_lease_that_is_not_ascii_is_still_held(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It cannot be ours, but it expires by itself."""
    plant(raw, key("l"), b"\xff\xfe")

    snapshot = entries.take(ADA, OURS, MINUTE)

    assert snapshot.lease not in (None, OURS)
