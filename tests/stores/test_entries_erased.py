"""Erased people, and refusals dropped by a message, on every kind of store."""

import pytest
import redis

from proxy.domain.failures import (
    GraphTimeout,
)
from proxy.domain.profile import GraphError, Profile, Reason
from proxy.storage.codec import encode, encode_note
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.removal import Erased
from proxy.storage.snapshot import Snapshot
from tests.helpers.builders import form_of
from tests.helpers.stored_people import (
    ADA,
    BEN,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    OURS,
    THEIRS,
    a_profile,
    a_profile_of_nulls,
    a_refusal,
    an_entry,
    crowd,
    fail,
    key,
    keys_in,
    plant,
    store,
)

# Erasing


@pytest.mark.parametrize("entry", [True, False], ids=["entry", ""])
@pytest.mark.parametrize("lease", [True, False], ids=["lease", ""])
@pytest.mark.parametrize("note", [True, False], ids=["note", ""])
@pytest.mark.parametrize("marker", [True, False], ids=["marker", ""])
def test_erase_deletes_all_keys_and_returns_which_there_were(
    entries: EntryStore,
    raw: redis.Redis,
    entry: bool,
    lease: bool,
    note: bool,
    marker: bool,
) -> None:
    """Of this person only."""
    store(entries, an_entry(a_profile(BEN)))
    if entry:
        plant(raw, key("e"), encode(an_entry()))
    if lease:
        plant(raw, key("l"), OURS.encode())
    if note:
        plant(raw, key("n"), encode_note(GraphTimeout()))

    if marker:
        plant(raw, key("w"), b"1")

    assert entries.erase(ADA) == Erased(entry, lease, note, marker)

    assert keys_in(raw) == {key("e", BEN)}


def test_erase_deletes_undecodable_values(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """A value of an old version is about the person too."""
    plant(raw, key("e"), b'{"v":0}')
    plant(raw, key("l"), ["a list"])
    plant(raw, key("n"), {"a": "hash"})

    assert entries.erase(ADA) == Erased(True, True, True, False)

    assert keys_in(raw) == set()


def test_fetch_under_way_cannot_bring_back_an_erased_person(
    entries: EntryStore,
) -> None:
    """Promise 5: what was fetched before the erase is not written after it."""
    store(entries, an_entry())
    entries.take(ADA, OURS, MINUTE)

    entries.erase(ADA)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.read(ADA) == NOTHING


def test_fetch_from_before_an_erase_cannot_write_into_the_next(
    entries: EntryStore,
) -> None:
    """Another caller has taken a new lease, which the old fetch does not hold."""
    entries.take(ADA, OURS, MINUTE)
    entries.erase(ADA)
    entries.take(ADA, THEIRS, MINUTE)

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is True
    assert entries.read(ADA).entry == an_entry()


def test_erase_deletes_the_marker_of_a_message(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It is about the person, too."""
    entries.drop_refusals([ADA, BEN], MINUTE)

    entries.erase(ADA)

    assert keys_in(raw) == {key("w", BEN)}


# After a message


@pytest.mark.parametrize("reason", Reason)
def test_message_drops_a_refusal_of_any_reason(
    entries: EntryStore, raw: redis.Redis, reason: Reason
) -> None:
    """And a flight under way cannot write its outcome."""
    store(entries, an_entry(a_refusal(reason)))
    entries.take(ADA, OURS, MINUTE)

    assert entries.drop_refusals([ADA], MINUTE) is True

    assert entries.put(ADA, an_entry(a_refusal(reason)), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert keys_in(raw) == {key("w")}
    assert 119_000 < raw.pttl(key("w")) <= 120_000


@pytest.mark.parametrize(
    "profile",
    [
        a_profile(),
        a_profile_of_nulls(),
        a_profile(name='],null,"consent_required",[', username="[,,,,,null,"),
    ],
    ids=["profile", "nulls", "odd name"],
)
def test_message_keeps_a_profile(
    entries: EntryStore, raw: redis.Redis, profile: Profile
) -> None:
    """But no flight under way: Meta may have answered it that there is no consent."""
    store(entries, an_entry(profile))
    raw.pexpire(key("e"), 1_800_000)  # half of its life is over
    entries.take(ADA, OURS, MINUTE)

    assert entries.drop_refusals([ADA], MINUTE) is False

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.read(ADA) == Snapshot(form_of(an_entry(profile)), None, None)


def test_message_drops_a_refusal_whose_text_looks_like_a_profile(
    entries: EntryStore,
) -> None:
    """Meta's error is stored with the refusal."""
    said = GraphError(230, None, '"],[3,"1",1.0,2.0,3.0,["x"]')
    store(entries, an_entry(a_refusal(said=said)))

    entries.drop_refusals([ADA], MINUTE)

    assert entries.read(ADA) == NOTHING


def array_of(version: bytes, *values: bytes) -> bytes:
    """A stored array about Ada, with these *values* after her id."""
    return b"[%b]" % b",".join([version, b'"%b"' % ADA.encode(), *values])


@pytest.mark.parametrize(
    "planted",
    [
        array_of(b"3", b"1.2.3", b"1", b"1800003600.0", b"[]"),
        array_of(b"3", b"1800000000.0", b"1", b".", b"[]"),
        array_of(b"3", b"null", b"null", b"null", b"[]"),
        array_of(b"3", b"1e9", b"1e9", b"1e9", b"[]"),
    ],
)
def test_message_tolerates_bounds_that_are_not_moments(
    entries: EntryStore, raw: redis.Redis, planted: bytes
) -> None:
    """Such a profile counts as young; others are dropped in the same trip."""
    plant(raw, key("e"), planted)
    store(entries, an_entry(a_refusal(igsid=BEN)))

    assert entries.drop_refusals([ADA], MINUTE) is True
    assert entries.drop_refusals([ADA, BEN], MINUTE) is True

    assert key("e", BEN) not in keys_in(raw)


@pytest.mark.parametrize("version", [b"2", b"4", b"30"])
def test_message_drops_an_entry_of_another_version(
    entries: EntryStore, raw: redis.Redis, version: bytes
) -> None:
    """It may be a refusal that a process of that version can decode."""
    plant(raw, key("e"), array_of(version, b"1.0", b"2.0", b"3.0", b"[230]"))

    assert entries.drop_refusals([ADA], MINUTE) is True

    assert keys_in(raw) == {key("w")}


def test_message_deletes_the_note(entries: EntryStore) -> None:
    """Meta is then asked about the person at once."""
    fail(entries, GraphTimeout())

    entries.drop_refusals([ADA], MINUTE)

    assert entries.read(ADA) == NOTHING


def test_second_message_waits_for_the_same_local_copies(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """The first has dropped what a process may still have, for a short while."""
    entries.drop_refusals([ADA], MINUTE)
    store(entries, an_entry())
    raw.pexpire(key("e"), 1_800_000)  # half of its life is over

    assert entries.drop_refusals([ADA], MINUTE) is True

    raw.pexpire(key("w"), 119_400)
    assert entries.drop_refusals([ADA], MINUTE) is False


@pytest.mark.parametrize(
    ("age_ms", "is_young"), [(0, True), (6_000, True), (6_600, False)]
)
def test_message_waits_for_copies_from_before_a_young_profile(
    entries: EntryStore, raw: redis.Redis, age_ms: int, is_young: bool
) -> None:
    """A refusal that it has replaced, or that was flushed just before it was stored."""
    store(entries, an_entry(a_refusal()))
    store(entries, an_entry())
    raw.pexpire(key("e"), 3_600_000 - age_ms)

    assert entries.drop_refusals([ADA], 6.0) is is_young


def test_message_waits_for_local_copies_when_nothing_is_stored(
    entries: EntryStore,
) -> None:
    """An erase, a flush or the store itself may have dropped the entry just now."""
    assert entries.drop_refusals([ADA], MINUTE) is True


def test_take_returns_that_the_person_has_written(
    entries: EntryStore,
) -> None:
    """For two minutes, and only about this person."""
    before = entries.take(BEN, OURS, MINUTE)
    entries.drop_refusals([ADA], MINUTE)

    assert entries.take(ADA, OURS, MINUTE) == Snapshot(
        None, OURS, None, has_written=True
    )
    assert before == Snapshot(None, OURS, None)


def test_drop_refusals_takes_a_thousand_people_at_once(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """On any nodes, each person once; other people stay."""
    people = crowd(1000)
    for igsid in people:
        refusal = an_entry(a_refusal(igsid=igsid))
        cache.set(key("e", igsid).removeprefix("pp:"), encode(refusal), HOUR)
    store(entries, an_entry(a_refusal(igsid=BEN)))

    assert entries.drop_refusals([*people, *people], MINUTE) is True

    markers = {key("w", igsid) for igsid in people}
    assert keys_in(raw) == {key("e", BEN), *markers}
