"""Entries, leases and notes: who may write what, on every kind of store."""

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis

from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import GraphError, Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.codec import SCHEMA, decode_note, encode, encode_note
from proxy.storage.entries import EntryStore, Erased
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Census, Flushed
from proxy.storage.snapshot import Snapshot
from tests.helpers.builders import form_of
from tests.helpers.redis_servers import REAL_STORES

NOW = 1_800_000_000.0
MINUTE = 60.0
HOUR = 3600.0

ADA = Igsid("1254001000000001")
BEN = Igsid("1254001000000002")
OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"

SAID = GraphError(230, 33, "AbCd_-0123")
NOBODY = Snapshot(None, None, None)

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
    """As a whole flight would."""
    igsid = entry.outcome.igsid
    entries.take(igsid, OURS, MINUTE)
    assert entries.put(igsid, entry, OURS, NOW)


def fail(entries: EntryStore, failure: LookupFailure, igsid: Igsid = ADA) -> None:
    """As a whole flight that fails would."""
    entries.take(igsid, OURS, MINUTE)
    assert entries.fail(igsid, failure, OURS, now=NOW)


def plant(raw: redis.Redis, whole_key: str, value: object) -> None:
    """Put something at a key that our code would not."""
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


@pytest.fixture
def entries(entries: EntryStore, raw: redis.Redis) -> Iterator[EntryStore]:
    """Whatever a test does with it, every key under our prefix has a time to go."""
    yield entries
    lasting = {name for name in raw.scan_iter("pp:*", count=1000) if raw.pttl(name) < 0}
    assert {name for name in lasting if raw.exists(name)} == set()


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
    pytest.param(a_refusal(said=GraphError()), id="refusal-without-a-word"),
    pytest.param(a_refusal(said=GraphError(100, None, None)), id="refusal-with-code"),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_comes_back_as_it_was(entries: EntryStore, outcome: Outcome) -> None:
    """Every field and every bound, and neither lease nor note with it."""
    entry = Entry(outcome, NOW - 0.123456, NOW + 1.000001, NOW + HOUR / 7)

    store(entries, entry)

    seen = entries.read(ADA)
    assert (seen.entry, seen.lease, seen.note) == (entry, None, None)


def test_nothing_is_seen_of_somebody_unknown(entries: EntryStore) -> None:
    """Not even by somebody else's entry under the same store."""
    store(entries, an_entry(a_profile(BEN)))

    assert entries.read(ADA) == NOBODY


def test_pages_do_not_see_each_other(entries: EntryStore) -> None:
    """The same number is another person for another Page."""
    other = entries.of_page("shop")
    store(entries, an_entry())
    store(other, an_entry(a_refusal()))

    assert entries.read(ADA).entry == an_entry()
    assert other.erase(ADA).entry
    assert entries.read(ADA).entry == an_entry()


def test_why_an_entry_ends_and_what_meta_said_last_come_back(
    entries: EntryStore,
) -> None:
    """An operator who looks sees what the process that stored it knew."""
    entry = replace(
        an_entry(), expiry_reason=ExpiryReason.PICTURE_MARGIN, last_said=SAID
    )
    store(entries, entry)

    assert entries.read(ADA).entry == entry


def test_a_flush_of_one_page_leaves_the_others(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Their leases too, and a Page whose name only begins like this one's."""
    shop, shop_2 = entries.of_page("shop"), entries.of_page("shop-2")
    for each in (entries, shop, shop_2):
        store(each, an_entry())
        each.take(BEN, OURS, MINUTE)

    assert shop.flush(None, dry_run=True) == Flushed(1, 0)
    assert shop.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == {
        f"pp:{kind}:{{{page}:{igsid}}}"
        for page in ("default", "shop-2")
        for kind, igsid in (("e", ADA), ("l", BEN))
    }


def test_a_flush_of_every_page_reaches_those_that_nobody_serves(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """A Page that was taken out of the settings has left its entries behind."""
    for page in ("shop", "gone"):
        store(entries.of_page(page), an_entry())
    store(entries, an_entry())

    assert entries.flush(lambda entry: True, every_page=True) == Flushed(3, 3)

    assert keys_in(raw) == set()


def test_a_census_is_of_one_page(entries: EntryStore) -> None:
    """How many there are of another says nothing of this one."""
    store(entries, an_entry())
    store(entries.of_page("shop"), an_entry())
    store(entries.of_page("shop"), an_entry(a_profile(BEN)))

    shop = entries.of_page("shop").census(lambda entry: "one", 10)

    assert shop == Census({"one": 2}, True)


@pytest.mark.parametrize("at_most", [2499, 2500])
def test_a_census_counts_each_entry_once_up_to_a_limit(
    entries: EntryStore, raw: redis.Redis, at_most: int
) -> None:
    """Leases and notes are none; what cannot be read is one of its own kind."""
    pipe = raw.pipeline(transaction=False)
    for igsid in crowd(2499):
        pipe.set(key("e", igsid), encode(an_entry(a_profile(igsid))), ex=60)
    pipe.set(key("e"), b"nonsense", ex=60)
    pipe.execute()
    entries.take(Igsid("99999"), OURS, MINUTE)

    census = entries.census(
        lambda entry: "readable" if entry else "unreadable", at_most
    )

    if at_most == 2500:
        assert census == Census({"readable": 2499, "unreadable": 1}, True)
    else:
        assert census.is_complete is False
        assert sum(census.kinds.values()) <= at_most


# Taking


def test_the_first_taker_gets_the_lease(entries: EntryStore, raw: redis.Redis) -> None:
    """With an end, set by the same command."""
    seen = entries.take(ADA, OURS, 6.5)

    assert seen == Snapshot(None, OURS, None) == entries.read(ADA)
    assert 6_000 < raw.pttl(key("l")) <= 6_500


def test_taking_again_under_the_same_name_does_no_harm(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """This is how a lost reply is made good; the lease does not get longer by it."""
    entries.take(ADA, OURS, 5.0)
    expires_at = raw.pexpiretime(key("l"))

    again = entries.take(ADA, OURS, 5000.0)

    assert again.lease == OURS
    assert raw.pexpiretime(key("l")) == expires_at


def test_the_second_taker_sees_whose_lease_it_is(entries: EntryStore) -> None:
    """And the first still holds it."""
    entries.take(ADA, OURS, MINUTE)

    seen = entries.take(ADA, THEIRS, MINUTE)

    assert seen == Snapshot(None, OURS, None)
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is False
    assert entries.put(ADA, an_entry(), OURS, NOW) is True


def test_one_of_many_threads_gets_the_lease(entries: EntryStore) -> None:
    """Looking and taking are one step, and all see the same holder."""
    line = threading.Barrier(32)

    def race(runner: int) -> tuple[str, str | None]:
        line.wait()
        return f"{runner:016x}", entries.take(ADA, f"{runner:016x}", MINUTE).lease

    with ThreadPoolExecutor(32) as pool:
        ran = list(pool.map(race, range(32)))

    assert len({holder for _, holder in ran}) == 1
    assert sum(runner == holder for runner, holder in ran) == 1


def test_a_lease_is_given_to_who_knows_the_note(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It goes, so that whatever lies there later is of this flight."""
    known = Throttled(GraphError(4), retry_after=0.1 + 0.2)
    plant(raw, key("n"), encode_note(known))

    refused = entries.take(ADA, THEIRS, MINUTE, Throttled(GraphError(4)))
    taken = entries.take(ADA, OURS, MINUTE, decode_note(encode_note(known)))

    assert (refused.lease, type(refused.note)) == (None, Throttled)
    assert (taken.lease, taken.note) == (OURS, None)
    assert not raw.exists(key("n"))


def test_no_lease_is_given_while_a_note_lies_there(entries: EntryStore) -> None:
    """Those who waited share the failure, rather than ask Meta in turn."""
    fail(entries, GraphTimeout())

    seen = entries.take(ADA, THEIRS, MINUTE)

    assert seen.lease is None
    assert isinstance(seen.note, GraphTimeout)
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is False


def test_many_are_seen_as_each_alone(entries: EntryStore) -> None:
    """With lease and note, on one server or on several; nobody is left out."""
    people = [Igsid(f"12540012345{n:04d}") for n in range(100)]
    store(entries, an_entry())
    for number, igsid in enumerate(people):
        if number % 3 == 0:
            entries.take(igsid, OURS, MINUTE)
        if number % 6 == 0:
            entries.fail(igsid, GraphTimeout(), OURS, now=NOW)

    found = entries.read_many([ADA, *people])

    assert found[ADA] == entries.read(ADA)
    assert {igsid: (seen.lease, type(seen.note)) for igsid, seen in found.items()} == {
        igsid: (seen.lease, type(seen.note))
        for igsid, seen in ((igsid, entries.read(igsid)) for igsid in found)
    }
    assert set(found) == {ADA, *people}
    assert entries.read_many([]) == {}


def test_a_taker_sees_what_was_stored_before(entries: EntryStore) -> None:
    """Reading again comes with the lease, so that nobody asks Meta in vain."""
    store(entries, an_entry())

    assert entries.take(ADA, THEIRS, MINUTE) == Snapshot(
        form_of(an_entry()), THEIRS, None
    )


def test_a_lease_ends_by_itself(entries: EntryStore) -> None:
    """A dead leader blocks nobody for longer; the shortest lease is a millisecond."""
    entries.take(ADA, OURS, 0.0001)
    until_it_ends(lambda: entries.read(ADA).lease is None)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.take(ADA, THEIRS, MINUTE).lease == THEIRS
    assert entries.put(ADA, an_entry(), OURS, NOW) is False


def until_it_ends(ended: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if ended():
            return
    raise AssertionError("it did not end")


# Putting


def test_a_put_ends_the_flight(entries: EntryStore, raw: redis.Redis) -> None:
    """The entry takes the place of lease and note."""
    entries.take(ADA, OURS, MINUTE)
    plant(raw, key("n"), encode_note(GraphTimeout()))

    assert entries.put(ADA, an_entry(), OURS, NOW) is True

    assert keys_in(raw) == {key("e")}


@pytest.mark.parametrize(
    ("usable_for", "milliseconds"),
    [(90_000.0, 90_000_000), (12.3459, 12_345), (5.0, 5_000), (0.9999, 999)],
)
def test_an_entry_is_kept_for_as_long_as_it_is_usable(
    entries: EntryStore, raw: redis.Redis, usable_for: float, milliseconds: int
) -> None:
    """To the millisecond, counted from *now* and never rounded up."""
    entries.take(ADA, OURS, MINUTE)

    before = server_milliseconds(raw)
    entries.put(ADA, an_entry(usable_for=usable_for), OURS, NOW)
    after = server_milliseconds(raw)

    expires_at = raw.pexpiretime(key("e"))
    assert before + milliseconds <= expires_at <= after + milliseconds


def test_an_entry_with_a_millisecond_left_is_stored(entries: EntryStore) -> None:
    """The shortest time there is; zero would be an error to Redis."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=0.0015), OURS, NOW) is True

    until_it_ends(lambda: entries.read(ADA) == NOBODY)


@pytest.mark.parametrize("left", [0.0009, 0.0, -0.001, -HOUR])
def test_an_entry_without_life_left_only_gives_the_lease_back(
    entries: EntryStore, raw: redis.Redis, left: float
) -> None:
    """Nothing is stored, and nobody has to wait for the lease to end."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=left), OURS, NOW) is False

    assert keys_in(raw) == set()


def test_an_entry_without_life_left_ends_no_other_lease(entries: EntryStore) -> None:
    """A lease is given back by its owner only, this way too."""
    entries.take(ADA, THEIRS, MINUTE)

    assert entries.put(ADA, an_entry(usable_for=0.0), OURS, NOW) is False

    assert entries.read(ADA).lease == THEIRS


@pytest.mark.parametrize("holder", [None, THEIRS, OURS + "0", ""], ids=repr)
def test_a_lost_lease_writes_nothing(
    entries: EntryStore, raw: redis.Redis, holder: str | None
) -> None:
    """Nor does it take anything away from whoever holds it now."""
    store(entries, an_entry(a_refusal()))
    if holder is not None:
        plant(raw, key("l"), holder.encode())
    before = {name: raw.get(name) for name in keys_in(raw)}

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.release(ADA, OURS) is False

    assert {name: raw.get(name) for name in keys_in(raw)} == before


def test_a_lease_writes_once(entries: EntryStore) -> None:
    """It ends with the put, so a second one is nobody's."""
    store(entries, an_entry())

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.read(ADA).entry == an_entry()


def test_a_lease_is_for_one_person(entries: EntryStore) -> None:
    """Who may write about Ada may not write about Ben."""
    entries.take(ADA, OURS, MINUTE)

    assert entries.put(BEN, an_entry(a_profile(BEN)), OURS, NOW) is False
    assert entries.read(BEN) == NOBODY


# Failing


FAILURES = [
    pytest.param(TokenRejected(GraphError(190, 463, "AbC")), id="TokenRejected"),
    pytest.param(PermissionMissing(GraphError(10, None, None)), id="PermissionMissing"),
    pytest.param(Throttled(GraphError(4, 2018022, "x"), 61.5), id="Throttled"),
    pytest.param(Throttled(retry_after=0.0), id="Throttled-for-no-time"),
    pytest.param(GraphTimeout(), id="GraphTimeout"),
    pytest.param(GraphUnavailable(GraphError(2, None, "y")), id="GraphUnavailable"),
    pytest.param(GraphUnavailable(None, 3.0), id="GraphUnavailable-with-a-wait"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_to_those_who_wait(
    entries: EntryStore, failure: LookupFailure
) -> None:
    """The same failure, with what Meta said and how long to wait."""
    fail(entries, failure)

    note = entries.read(ADA).note

    assert type(note) is type(failure)
    assert (note.said, note.retry_after) == (failure.said, failure.retry_after)


def test_our_own_overload_is_told_as_no_answer(entries: EntryStore) -> None:
    """It is about one process, and the others are not overloaded."""
    fail(entries, Overloaded(retry_after=1.0))

    assert type(entries.read(ADA).note) is GraphUnavailable


def test_a_note_takes_the_place_of_the_lease_for_a_second(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """And leaves the entry alone, which may be usable still."""
    store(entries, an_entry())
    fail(entries, GraphTimeout())

    seen = entries.read(ADA)

    assert (seen.entry, seen.lease) == (an_entry(), None)
    assert 500 < raw.pttl(key("n")) <= 1_000


@pytest.mark.parametrize(
    "note",
    [b"", b"{", b"null", b'{"v":1}', b'{"v":1,"failure":"\xff"}', b'"\xff"', b"\xff"],
)
def test_a_note_that_makes_no_sense_still_says_that_it_failed(
    entries: EntryStore, raw: redis.Redis, note: bytes
) -> None:
    """An older or newer proxy may have left it."""
    plant(raw, key("n"), note)

    assert type(entries.read(ADA).note) is GraphUnavailable
    assert entries.take(ADA, OURS, MINUTE).lease is None


# Giving back


def test_a_lease_is_given_back_by_its_owner(
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


# Erasing


@pytest.mark.parametrize("entry", [True, False], ids=["entry", ""])
@pytest.mark.parametrize("lease", [True, False], ids=["lease", ""])
@pytest.mark.parametrize("note", [True, False], ids=["note", ""])
def test_an_erase_drops_all_and_says_what_was_there(
    entries: EntryStore, raw: redis.Redis, entry: bool, lease: bool, note: bool
) -> None:
    """Of this person, and of nobody else."""
    store(entries, an_entry(a_profile(BEN)))
    if entry:
        plant(raw, key("e"), encode(an_entry()))
    if lease:
        plant(raw, key("l"), OURS.encode())
    if note:
        plant(raw, key("n"), encode_note(GraphTimeout()))

    assert entries.erase(ADA) == Erased(entry, lease, note)

    assert keys_in(raw) == {key("e", BEN)}


def test_an_erase_reaches_what_we_cannot_read(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """What an old version wrote is about the person too."""
    plant(raw, key("e"), b'{"v":0}')
    plant(raw, key("l"), ["a list"])
    plant(raw, key("n"), {"a": "hash"})

    assert entries.erase(ADA) == Erased(True, True, True)

    assert keys_in(raw) == set()


def test_a_fetch_under_way_cannot_bring_back_the_erased(entries: EntryStore) -> None:
    """Promise 5: what was asked before the erase is not written after it."""
    store(entries, an_entry())
    entries.take(ADA, OURS, MINUTE)

    entries.erase(ADA)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.read(ADA) == NOBODY


def test_a_fetch_from_before_an_erase_stays_out_of_the_next_one(
    entries: EntryStore,
) -> None:
    """Somebody has taken the lease anew; the old fetch holds it no more for that."""
    entries.take(ADA, OURS, MINUTE)
    entries.erase(ADA)
    entries.take(ADA, THEIRS, MINUTE)

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is True
    assert entries.read(ADA).entry == an_entry()


def test_an_erase_takes_the_marker_of_a_message(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It is about the person, too."""
    entries.drop_refusals([ADA, BEN], MINUTE)

    entries.erase(ADA)

    assert keys_in(raw) == {key("w", BEN)}


# Somebody has written


@pytest.mark.parametrize("reason", Reason)
def test_whoever_writes_is_refused_no_more(
    entries: EntryStore, raw: redis.Redis, reason: Reason
) -> None:
    """Whatever the reason was; and a flight under way learns in vain."""
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
def test_the_profile_of_whoever_writes_stays(
    entries: EntryStore, raw: redis.Redis, profile: Profile
) -> None:
    """But not what is under way: it may have been told that there is no consent."""
    store(entries, an_entry(profile))
    raw.pexpire(key("e"), 1_800_000)  # half of its life is over
    entries.take(ADA, OURS, MINUTE)

    assert entries.drop_refusals([ADA], MINUTE) is False

    assert entries.put(ADA, an_entry(a_refusal()), OURS, NOW) is False
    assert entries.read(ADA) == Snapshot(form_of(an_entry(profile)), None, None)


def test_no_words_of_a_refusal_make_a_profile_of_it(entries: EntryStore) -> None:
    """What Meta says is stored with it."""
    said = GraphError(230, None, '"],[3,"1",1.0,2.0,3.0,["x"]')
    store(entries, an_entry(a_refusal(said=said)))

    entries.drop_refusals([ADA], MINUTE)

    assert entries.read(ADA) == NOBODY


def array_of(version: bytes, *values: bytes) -> bytes:
    """What is stored of Ada, with whatever *values* after her id."""
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
def test_what_is_no_moment_stops_nobody_who_writes(
    entries: EntryStore, raw: redis.Redis, planted: bytes
) -> None:
    """It may have come just now; and others are dropped in the same trip."""
    plant(raw, key("e"), planted)
    store(entries, an_entry(a_refusal(igsid=BEN)))

    assert entries.drop_refusals([ADA], MINUTE) is True
    assert entries.drop_refusals([ADA, BEN], MINUTE) is True

    assert key("e", BEN) not in keys_in(raw)


@pytest.mark.parametrize("version", [b"2", b"4", b"30"])
def test_nothing_of_another_version_stays_when_somebody_writes(
    entries: EntryStore, raw: redis.Redis, version: bytes
) -> None:
    """It may be a refusal there, which whoever runs that version can read."""
    plant(raw, key("e"), array_of(version, b"1.0", b"2.0", b"3.0", b"[230]"))

    assert entries.drop_refusals([ADA], MINUTE) is True

    assert keys_in(raw) == {key("w")}


def test_a_note_goes_with_the_flight_that_left_it(entries: EntryStore) -> None:
    """Whoever writes is asked for at once."""
    fail(entries, GraphTimeout())

    entries.drop_refusals([ADA], MINUTE)

    assert entries.read(ADA) == NOBODY


def test_a_message_after_a_message_waits_for_the_same_copies(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """The first has dropped what some process may still have; not for long."""
    entries.drop_refusals([ADA], MINUTE)
    store(entries, an_entry())
    raw.pexpire(key("e"), 1_800_000)  # half of its life is over

    assert entries.drop_refusals([ADA], MINUTE) is True

    raw.pexpire(key("w"), 119_400)
    assert entries.drop_refusals([ADA], MINUTE) is False


@pytest.mark.parametrize(
    ("age_ms", "is_young"), [(0, True), (6_000, True), (6_600, False)]
)
def test_a_profile_that_has_just_come_waits_for_copies_of_what_was_there_before(
    entries: EntryStore, raw: redis.Redis, age_ms: int, is_young: bool
) -> None:
    """A refusal that it has replaced, or that was flushed just before it came."""
    store(entries, an_entry(a_refusal()))
    store(entries, an_entry())
    raw.pexpire(key("e"), 3_600_000 - age_ms)

    assert entries.drop_refusals([ADA], 6.0) is is_young


def test_copies_are_waited_for_when_there_is_nothing_left(entries: EntryStore) -> None:
    """An erase, a flush or the store itself may have dropped it just now."""
    assert entries.drop_refusals([ADA], MINUTE) is True


def test_who_takes_the_lease_knows_that_the_person_has_written(
    entries: EntryStore,
) -> None:
    """For two minutes, and of nobody else."""
    before = entries.take(BEN, OURS, MINUTE)
    entries.drop_refusals([ADA], MINUTE)

    assert entries.take(ADA, OURS, MINUTE) == Snapshot(
        None, OURS, None, has_written=True
    )
    assert before == Snapshot(None, OURS, None)


def test_a_thousand_people_are_dropped_in_one_go(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """On whatever nodes they are, each once; others stay."""
    people = crowd(1000)
    for igsid in people:
        refusal = an_entry(a_refusal(igsid=igsid))
        cache.set(key("e", igsid).removeprefix("pp:"), encode(refusal), HOUR)
    store(entries, an_entry(a_refusal(igsid=BEN)))

    assert entries.drop_refusals([*people, *people], MINUTE) is True

    markers = {key("w", igsid) for igsid in people}
    assert keys_in(raw) == {key("e", BEN), *markers}


# Flushing


def some_of_everything(entries: EntryStore, raw: redis.Redis) -> None:
    """Three profiles, two refusals, a lease, a note, and others' keys."""
    ada, ben, *rest = (Igsid(f"125400300000000{number}") for number in range(7))
    for igsid in (ada, ben, rest[0]):
        store(entries, an_entry(a_profile(igsid)))
    store(entries, an_entry(a_refusal(Reason.BLOCKED, igsid=rest[1])))
    store(entries, an_entry(a_refusal(Reason.NOT_FOUND, igsid=rest[2])))
    entries.take(rest[3], OURS, MINUTE)
    fail(entries, GraphTimeout(), rest[4])
    for other in FOREIGN:
        raw.set(other, b"theirs")


FOREIGN = {"pp2:e:{default:1}", "e:{default:1}", "pp", "other", "ppe:1"}
GATES = ("pp:g:{default}:throttled", "pp:w:{default:1}", "pp:gate", "pp:es", "pp:ln")


def is_refusal(entry: Entry | None) -> bool:
    return entry is not None and isinstance(entry.outcome, Refusal)


def test_a_flush_of_all_leaves_only_what_is_not_ours(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Entries, leases and notes go; entries are counted."""
    some_of_everything(entries, raw)

    assert entries.flush(None) == Flushed(matched=5, deleted=5)

    assert keys_in(raw) == FOREIGN
    assert entries.flush(None) == Flushed(0, 0)


def test_a_flush_of_some_leaves_the_others(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """But no lease and no note: they may be of a fetch that would match."""
    some_of_everything(entries, raw)

    assert entries.flush(is_refusal) == Flushed(matched=2, deleted=2)

    ours = keys_in(raw) - FOREIGN
    assert len(ours) == 3
    assert all(name.startswith("pp:e:") for name in ours)
    assert entries.flush(is_refusal) == Flushed(0, 0)
    assert entries.flush(lambda entry: True) == Flushed(3, 3)


@pytest.mark.parametrize("matches", [None, is_refusal], ids=["all", "some"])
def test_a_dry_run_counts_and_removes_nothing(
    entries: EntryStore,
    raw: redis.Redis,
    matches: Callable[[Entry | None], bool] | None,
) -> None:
    """No lease either: a fetch under way goes on."""
    some_of_everything(entries, raw)
    before = keys_in(raw)

    counted = entries.flush(matches, dry_run=True)

    assert counted == Flushed(matched=2 if matches else 5, deleted=0)
    assert keys_in(raw) == before


def test_a_flush_leaves_gates_and_markers(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """They are ours, but they are no entries."""
    for gate in GATES:
        raw.set(gate, b"x", px=60_000)
    store(entries, an_entry())

    assert entries.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == set(GATES)


def test_a_flush_shows_what_it_cannot_read_as_none(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """So that it can be picked, or left."""
    store(entries, an_entry())
    plant(raw, key("e", BEN), b'{"v":1,"id":"\xff')

    assert entries.flush(lambda entry: entry is not None, dry_run=True).matched == 1
    assert entries.flush(lambda entry: entry is None) == Flushed(1, 1)
    assert keys_in(raw) == {key("e")}


@pytest.mark.parametrize("matches", [None, lambda entry: True], ids=["all", "some"])
def test_a_fetch_under_way_cannot_bring_back_the_flushed(
    entries: EntryStore, matches: Callable[[Entry | None], bool] | None
) -> None:
    """Its lease has gone with the entry, whether that matched or not."""
    store(entries, an_entry())
    entries.take(ADA, OURS, MINUTE)

    entries.flush(matches)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.read(ADA) == NOBODY


def test_every_lease_has_gone_before_the_first_entry_is_looked_at(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """In one pass, a fetch could write behind the cursor what the flush then leaves."""
    people = crowd(3000)
    plant_crowd(raw, people)
    written: list[bool] = []

    def write_at_the_first_look(entry: Entry | None) -> bool:
        if not written:
            written.extend(
                entries.put(igsid, an_entry(a_profile(igsid)), OURS, NOW)
                for igsid in people[::10]
            )
        return True

    flushed = entries.flush(write_at_the_first_look)

    assert written == [False] * 300
    assert flushed == Flushed(3000, 3000)
    assert list(cache.keyspace.scan("*")) == []


def plant_crowd(raw: redis.Redis, people: list[Igsid]) -> None:
    """An entry for each, and a lease under which it is being fetched again."""
    pipe = raw.pipeline(transaction=False)
    for igsid in people:
        pipe.set(key("e", igsid), encode(an_entry(a_profile(igsid))), ex=3600)
        pipe.set(key("l", igsid), OURS, ex=3600)
    pipe.execute()


def test_nothing_begun_before_a_flush_is_there_after_it(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """However the writes of many fetches fall between its slices."""
    people = crowd(4000)
    plant_crowd(raw, people)
    line = threading.Barrier(5)

    def land(share: list[Igsid]) -> None:
        line.wait()
        for igsid in share:
            entries.put(igsid, an_entry(a_profile(igsid)), OURS, NOW)

    with ThreadPoolExecutor(4) as pool:
        landings = [pool.submit(land, people[first::40]) for first in range(4)]
        line.wait()
        entries.flush(None)
        for landing in landings:
            landing.result()

    assert list(cache.keyspace.scan("*")) == []


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_a_flush_never_stops_the_whole_server(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Slices and UNLINK; KEYS would hold everybody up, FLUSHDB take others' keys."""
    plant_crowd(raw, crowd(2000))
    raw.config_resetstat()

    entries.flush(None)
    entries.flush(lambda entry: True)

    ran = {command.removeprefix("cmdstat_") for command in raw.info("commandstats")}
    assert ran & {"keys", "flushdb", "flushall", "del"} == set()
    assert {"scan", "unlink"} <= ran


# What is stored


def test_what_is_seen_tells_of_the_entry(entries: EntryStore) -> None:
    """As it was stored, though it is made of its form when it is asked for."""
    store(entries, an_entry())

    assert entries.read(ADA).entry == an_entry()
    assert entries.read(BEN).entry is None


def test_what_is_stored_is_json_with_the_version_first(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """No pickle; the first value tells how to read it, and nothing ends with nulls."""
    store(entries, an_entry(a_profile(name="Zoë")))

    stored = raw.get(key("e"))

    assert stored.startswith(b"[%d," % SCHEMA)
    assert json.loads(stored)[5][0] == "Zoë"
    assert len(json.loads(stored)) == 6
    assert SCHEMA == 3


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_a_typical_profile_takes_at_most_700_bytes(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Key, value and what Redis adds, for about 300 bytes of JSON."""
    store(entries, an_entry())

    stored_bytes, taken_bytes = raw.strlen(key("e")), raw.memory_usage(key("e"))

    assert 280 <= stored_bytes <= 400
    assert taken_bytes <= 700


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
    pytest.param(VALID + b"x", id="with-more-behind"),
    pytest.param(VALID.replace(b"Lovelace", b"Lovel\xc3"), id="not-utf-8"),
    pytest.param(VALID.replace(b"Lovelace", rb"\ud83d"), id="half-a-pair"),
    pytest.param(VALID.replace(b"[3,", b"[4,", 1), id="newer-version"),
    pytest.param(VALID.replace(b"[3,", b"[2,", 1), id="older-version"),
    pytest.param(SCHEMA_2, id="older-form"),
    pytest.param(VALID.replace(b"[3,", b"[", 1), id="no-version"),
    pytest.param(VALID.partition(b",[")[0] + b"]", id="neither-of-both"),
    pytest.param(VALID[:-1] + b',"blocked",[551,null,null]]', id="both"),
    pytest.param(REFUSED.partition(b",[230")[0] + b"]", id="no-codes"),
    pytest.param(encode(an_entry(a_profile(BEN))), id="somebody-else"),
    pytest.param(REFUSED.replace(b"consent", b"x"), id="reason"),
    pytest.param(VALID.replace(b"18000", b"1e999", 1), id="end-of-time"),
    pytest.param(VALID.replace(b"1800000000.0", b"1e11", 1), id="no-calendar"),
    pytest.param(VALID.replace(b"1800000000.0", b"-1.0", 1), id="before-time"),
    pytest.param(VALID.replace(b"1800000000.0", b'"1.0"', 1), id="no-number"),
    pytest.param(VALID[:-1] + b",null,null,null,-1]", id="fewer-than-no-failures"),
    pytest.param(VALID[:-1] + b",null,null,null,0,null,1," + b"[" * 99_999, id="abyss"),
    pytest.param(pickle.dumps({"v": 1}), id="pickle"),
    pytest.param(b"42", id="number"),
    pytest.param(["a", "list"], id="list"),
    pytest.param({"a": "hash"}, id="hash"),
    pytest.param({"a set"}, id="set"),
]


@pytest.mark.parametrize("planted", UNREADABLE)
def test_what_cannot_be_read_is_a_miss_and_is_overwritten(
    entries: EntryStore, raw: redis.Redis, planted: object
) -> None:
    """By the next flight, without an error on the way."""
    plant(raw, key("e"), planted)

    assert entries.read(ADA) == NOBODY
    assert entries.take(ADA, OURS, MINUTE) == Snapshot(None, OURS, None)
    assert entries.put(ADA, an_entry(), OURS, NOW) is True
    assert entries.read(ADA) == Snapshot(form_of(an_entry()), None, None)


@pytest.mark.parametrize("planted", UNREADABLE)
def test_a_flush_removes_what_cannot_be_read(
    entries: EntryStore, raw: redis.Redis, planted: object
) -> None:
    """It is stored, so a flush of all is about it too."""
    plant(raw, key("e", ADA), planted)

    assert entries.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == set()


@pytest.mark.parametrize("kind", ["l", "n"])
@pytest.mark.parametrize("planted", [["a", "list"], {"a": "hash"}, {"a set"}], ids=repr)
def test_another_type_in_the_place_of_lease_or_note_stops_no_flight(
    entries: EntryStore, raw: redis.Redis, kind: str, planted: object
) -> None:
    """Nobody's lease, no failure: it is overwritten or removed."""
    plant(raw, key(kind), planted)

    assert entries.read(ADA) == NOBODY
    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.take(ADA, OURS, MINUTE).lease == OURS
    assert entries.put(ADA, an_entry(), OURS, NOW) is True
    assert keys_in(raw) == {key("e")}


def test_a_lease_that_is_no_ascii_is_still_somebodys(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It cannot be ours, but it ends by itself."""
    plant(raw, key("l"), b"\xff\xfe")

    seen = entries.take(ADA, OURS, MINUTE)

    assert seen.lease not in (None, OURS)
