"""Entries, leases and notes: who may write, on every kind of store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis

from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.failures import (
    GraphTimeout,
)
from proxy.domain.profile import GraphError, Igsid, Outcome, Reason
from proxy.storage.codec import encode_note
from proxy.storage.entries import EntryStore
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
    SAID,
    THEIRS,
    a_profile,
    a_profile_of_nulls,
    a_refusal,
    an_entry,
    key,
    keys_in,
    plant,
    poll_until,
    server_milliseconds,
    store,
)

OUTCOMES = [
    pytest.param(a_profile(), id="profile"),
    pytest.param(a_profile_of_nulls(), id="profile-of-nulls"),
    pytest.param(a_profile(name="", username="", profile_pic=""), id="empty-texts"),
    pytest.param(a_profile(follower_count=0, picture_expires_at=0.0), id="zeros"),
    pytest.param(a_profile(follower_count=2**53 - 1), id="many-followers"),
    pytest.param(a_profile(picture_expires_at=float(0xFFFFFFFF)), id="latest-oe"),
    pytest.param(a_profile(name="🏳️‍🌈 Zoë 👩🏽‍💻 漢字 עברית"), id="emoji"),
    pytest.param(a_profile(name="\u200d\ufe0f🏽🇩"), id="lone-parts-of-emoji"),
    pytest.param(a_profile(name="cut \N{REPLACEMENT CHARACTER}"), id="half-a-pair"),
    pytest.param(a_profile(name='\x00"\\\n\u2028</script>'), id="control-characters"),
    pytest.param(a_profile(name="x" * 100_000), id="endless-name"),
    *(pytest.param(a_refusal(reason), id=reason) for reason in Reason),
    pytest.param(a_refusal(said=GraphError()), id="refusal-without-codes"),
    pytest.param(a_refusal(said=GraphError(100, None, None)), id="refusal-with-code"),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_read_returns_the_outcome_that_was_put(
    entries: EntryStore, outcome: Outcome
) -> None:
    """Every field and every bound, without lease or note."""
    entry = Entry(outcome, NOW - 0.123456, NOW + 1.000001, NOW + HOUR / 7)

    store(entries, entry)

    snapshot = entries.read(ADA)
    assert (snapshot.entry, snapshot.lease, snapshot.note) == (entry, None, None)


def test_read_of_an_unknown_person_is_empty(entries: EntryStore) -> None:
    """Even if there is another person's entry in the same store."""
    store(entries, an_entry(a_profile(BEN)))

    assert entries.read(ADA) == NOTHING


def test_pages_do_not_share_entries(entries: EntryStore) -> None:
    """The same number is another person for another Page."""
    other = entries.of_page("shop")
    store(entries, an_entry())
    store(other, an_entry(a_refusal()))

    assert entries.read(ADA).entry == an_entry()
    assert other.erase(ADA).entry
    assert entries.read(ADA).entry == an_entry()


def test_read_returns_expiry_reason_and_last_error(
    entries: EntryStore,
) -> None:
    """An operator then sees what the process that stored the entry knew."""
    entry = replace(
        an_entry(), expiry_reason=ExpiryReason.PICTURE_MARGIN, last_said=SAID
    )
    store(entries, entry)

    assert entries.read(ADA).entry == entry


# Taking


def test_take_gives_the_lease_to_the_first_caller(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """With a TTL, set by the same command."""
    snapshot = entries.take(ADA, OURS, 6.5)

    assert snapshot == Snapshot(None, OURS, None) == entries.read(ADA)
    assert 6_000 < raw.pttl(key("l")) <= 6_500


def test_take_can_be_repeated_with_the_same_lease(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """After a lost reply, for example; the TTL does not grow."""
    entries.take(ADA, OURS, 5.0)
    expires_at = raw.pexpiretime(key("l"))

    again = entries.take(ADA, OURS, 5000.0)

    assert again.lease == OURS
    assert raw.pexpiretime(key("l")) == expires_at


def test_take_shows_a_second_caller_the_holder(entries: EntryStore) -> None:
    """And the first still holds the lease."""
    entries.take(ADA, OURS, MINUTE)

    snapshot = entries.take(ADA, THEIRS, MINUTE)

    assert snapshot == Snapshot(None, OURS, None)
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is False
    assert entries.put(ADA, an_entry(), OURS, NOW) is True


def test_take_gives_the_lease_to_one_of_many_threads(entries: EntryStore) -> None:
    """Reading and taking are one step, and all threads see the same holder."""
    barrier = threading.Barrier(32)

    def race(runner: int) -> tuple[str, str | None]:
        barrier.wait()
        return f"{runner:016x}", entries.take(ADA, f"{runner:016x}", MINUTE).lease

    with ThreadPoolExecutor(32) as pool:
        ran = list(pool.map(race, range(32)))

    assert len({holder for _, holder in ran}) == 1
    assert sum(runner == holder for runner, holder in ran) == 1


def test_read_many_returns_what_read_returns_for_each(entries: EntryStore) -> None:
    """With lease and note, on one server or on several, of all people."""
    people = [Igsid(f"12540012345{n:04d}") for n in range(100)]
    store(entries, an_entry())
    for number, igsid in enumerate(people):
        if number % 3 == 0:
            entries.take(igsid, OURS, MINUTE)
        if number % 6 == 0:
            entries.fail(igsid, GraphTimeout(), OURS, now=NOW)

    found = entries.read_many([ADA, *people])

    assert found[ADA] == entries.read(ADA)
    for igsid, snapshot in found.items():
        alone = entries.read(igsid)
        assert isinstance(snapshot, Snapshot) and snapshot.lease == alone.lease
        assert snapshot.note == alone.note
    assert set(found) == {ADA, *people}
    assert entries.read_many([]) == {}


def test_take_returns_the_stored_entry(entries: EntryStore) -> None:
    """Reading again comes with the lease, so that Meta is not asked in vain."""
    store(entries, an_entry())

    assert entries.take(ADA, THEIRS, MINUTE) == Snapshot(
        form_of(an_entry()), THEIRS, None
    )


def test_lease_expires_by_itself(entries: EntryStore) -> None:
    """A dead leader blocks the person for no longer; the shortest TTL is 1 ms."""
    entries.take(ADA, OURS, 0.0001)
    poll_until(lambda: entries.read(ADA).lease is None)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.take(ADA, THEIRS, MINUTE).lease == THEIRS
    assert entries.put(ADA, an_entry(), OURS, NOW) is False


# Putting


def test_put_replaces_lease_and_note_by_the_entry(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """That ends the flight."""
    entries.take(ADA, OURS, MINUTE)
    plant(raw, key("n"), encode_note(GraphTimeout()))

    assert entries.put(ADA, an_entry(), OURS, NOW) is True

    assert keys_in(raw) == {key("e")}


@pytest.mark.parametrize(
    ("usable_for", "milliseconds"),
    [(90_000.0, 90_000_000), (12.3459, 12_345), (5.0, 5_000), (0.9999, 999)],
)
def test_put_keeps_an_entry_while_it_is_usable(
    entries: EntryStore, raw: redis.Redis, usable_for: float, milliseconds: int
) -> None:
    """To the millisecond, counted from *now* and never rounded up."""
    entries.take(ADA, OURS, MINUTE)

    before = server_milliseconds(raw)
    entries.put(ADA, an_entry(usable_for=usable_for), OURS, NOW)
    after = server_milliseconds(raw)

    expires_at = raw.pexpiretime(key("e"))
    assert before + milliseconds <= expires_at <= after + milliseconds


def test_put_stores_an_entry_with_a_millisecond_left(entries: EntryStore) -> None:
    """The shortest TTL there is; zero would be an error in Redis."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=0.0015), OURS, NOW) is True

    poll_until(lambda: entries.read(ADA) == NOTHING)


@pytest.mark.parametrize("left", [0.0009, 0.0, -0.001, -HOUR])
def test_put_of_an_expired_entry_only_releases_the_lease(
    entries: EntryStore, raw: redis.Redis, left: float
) -> None:
    """Nothing is stored, and no caller has to wait for the lease to expire."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=left), OURS, NOW) is False

    assert keys_in(raw) == set()


def test_put_of_an_expired_entry_keeps_the_lease_of_another(
    entries: EntryStore,
) -> None:
    """A lease is released by its owner only, this way too."""
    entries.take(ADA, THEIRS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=0.0), OURS, NOW) is False

    assert entries.read(ADA).lease == THEIRS


@pytest.mark.parametrize("holder", [None, THEIRS, OURS + "0", ""], ids=repr)
def test_lost_lease_writes_nothing(
    entries: EntryStore, raw: redis.Redis, holder: str | None
) -> None:
    """Nor does it take anything away from the current holder."""
    store(entries, an_entry(a_refusal()))
    if holder is not None:
        plant(raw, key("l"), holder.encode())
    before = {name: raw.get(name) for name in keys_in(raw)}

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.release(ADA, OURS) is False

    assert {name: raw.get(name) for name in keys_in(raw)} == before


def test_lease_writes_once(entries: EntryStore) -> None:
    """It ends with the put, so that a second put has no lease."""
    store(entries, an_entry())

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.read(ADA).entry == an_entry()


def test_lease_is_for_one_person(entries: EntryStore) -> None:
    """The lease for Ada does not allow writing about Ben."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(BEN, an_entry(a_profile(BEN)), OURS, NOW) is False
    assert entries.read(BEN) == NOTHING


# Releasing


def test_release_is_for_the_owner_of_the_lease(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Once, and the entry stays."""
    store(entries, an_entry())
    entries.take(ADA, OURS, MINUTE)

    assert entries.release(ADA, THEIRS) is False
    assert entries.read(ADA).lease == OURS
    assert entries.release(ADA, OURS) is True
    assert entries.release(ADA, OURS) is False
    assert keys_in(raw) == {key("e")}
