"""Notes: how a flight failed, for how long that answers, and what ends it."""

import pytest
import redis

from proxy.domain.backoff import FORCED, OPERATOR, PLAIN, PauseRule
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import GraphError
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Snapshot
from tests.helpers.stored_people import (
    ADA,
    MINUTE,
    NOW,
    OURS,
    THEIRS,
    a_refusal,
    an_entry,
    fail,
    key,
    keys_in,
    plant,
    store,
)

FAILURES = [
    pytest.param(TokenRejected(GraphError(190, 463, "AbC")), id="TokenRejected"),
    pytest.param(PermissionMissing(GraphError(10, None, None)), id="PermissionMissing"),
    pytest.param(Throttled(GraphError(4, 2018022, "x"), 61.5), id="Throttled"),
    pytest.param(Throttled(retry_after=0.0), id="Throttled-for-no-time"),
    pytest.param(GraphTimeout(), id="GraphTimeout"),
    pytest.param(GraphUnavailable(GraphError(2, None, "y")), id="GraphUnavailable"),
    pytest.param(GraphUnavailable(None, 3.0), id="GraphUnavailable-with-a-wait"),
]


def fail_in_a_row(
    entries: EntryStore, raw: redis.Redis, *, pause: float, age: float = 0.0
) -> None:
    """Leave the note of a third failure, *age* seconds ago by the store's clock."""
    entries.take(ADA, OURS, MINUTE)
    assert entries.fail(ADA, GraphTimeout(), OURS, failures=3, pause=pause, now=NOW)
    raw.pexpire(key("n"), round((600.0 - age) * 1000))


@pytest.mark.parametrize("failure", FAILURES)
def test_fail_leaves_the_failure_to_followers(
    entries: EntryStore, failure: LookupFailure
) -> None:
    """The same failure, with what Meta said and how long to wait."""
    fail(entries, failure)

    note = entries.read(ADA).note

    assert note is not None
    assert type(note.failure) is type(failure)
    assert note.failure.said == failure.said
    assert note.failure.retry_after == failure.retry_after


def test_fail_reports_our_overload_as_graph_unavailable(entries: EntryStore) -> None:
    """It is about one process, and the others are not overloaded."""
    fail(entries, Overloaded(retry_after=1.0))

    note = entries.read(ADA).note
    assert note is not None and type(note.failure) is GraphUnavailable


def test_fail_replaces_the_lease_by_a_note_for_a_second(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """It leaves the entry alone, which may still be usable."""
    store(entries, an_entry())
    fail(entries, GraphTimeout())

    snapshot = entries.read(ADA)

    assert (snapshot.entry, snapshot.lease) == (an_entry(), None)
    assert 500 < raw.pttl(key("n")) <= 1_000


def test_row_of_failures_is_remembered_for_ten_minutes(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Longer than its pause, so that the next failure counts on."""
    fail_in_a_row(entries, raw, pause=4.0)

    note, left = entries.read_note(ADA)

    assert note is not None
    assert (note.failures, note.pause, note.ttl) == (3, 4.0, 600.0)
    assert 599.0 < left <= 600.0
    assert entries.read(ADA).note == note


def test_read_note_finds_none_where_there_is_none(entries: EntryStore) -> None:
    """Whatever else there is about the person."""
    store(entries, an_entry())

    assert entries.read_note(ADA)[0] is None


def test_take_gives_no_lease_while_there_is_a_note(entries: EntryStore) -> None:
    """Followers share the failure, rather than ask Meta in turn."""
    fail(entries, GraphTimeout())

    snapshot = entries.take(ADA, THEIRS, MINUTE)

    assert snapshot.lease is None
    assert snapshot.note and isinstance(snapshot.note.failure, GraphTimeout)
    assert entries.put(ADA, an_entry(), THEIRS, NOW) is False


@pytest.mark.parametrize(
    ("pause", "age", "rule", "is_given"),
    [
        (4.0, 0.0, PLAIN, False),
        (4.0, 3.0, PLAIN, False),
        (4.0, 4.0, PLAIN, True),
        (60.0, 50.0, PLAIN, False),
        (4.0, 1.0, FORCED, False),
        (4.0, 2.0, FORCED, True),
        (60.0, 20.0, FORCED, False),
        (60.0, 30.0, FORCED, True),
        (60.0, 0.0, OPERATOR, True),
    ],
)
def test_take_gives_the_lease_once_the_caller_may_pass_the_note(
    entries: EntryStore,
    raw: redis.Redis,
    pause: float,
    age: float,
    rule: PauseRule,
    is_given: bool,
) -> None:
    """By the store's clock; the note stays, because the row goes on."""
    fail_in_a_row(entries, raw, pause=pause, age=age)

    snapshot = entries.take(ADA, THEIRS, MINUTE, rule)

    assert snapshot.lease == (THEIRS if is_given else None)
    assert snapshot.note and snapshot.note.failures == 3
    assert entries.read(ADA).note == snapshot.note


@pytest.mark.parametrize("is_shared", [True, False])
def test_row_outlives_a_flight_without_an_outcome(
    entries: EntryStore, raw: redis.Redis, is_shared: bool
) -> None:
    """The gate was closed, or the caller's allowance is spent: Meta was not asked."""
    fail_in_a_row(entries, raw, pause=4.0, age=4.0)
    taken = entries.take(ADA, THEIRS, MINUTE)
    assert taken.note
    row = taken.note.failures
    if is_shared:
        entries.fail(ADA, Throttled(retry_after=9.0), THEIRS, failures=row, now=NOW)
    else:
        entries.release(ADA, THEIRS)

    note, left = entries.read_note(ADA)

    assert note and note.failures == 3
    assert left > 590.0


@pytest.mark.parametrize("outcome", [None, a_refusal()], ids=["profile", "refusal"])
def test_outcome_ends_the_row(
    entries: EntryStore, raw: redis.Redis, outcome: object
) -> None:
    """A profile as well as a refusal: Meta has answered."""
    fail_in_a_row(entries, raw, pause=4.0, age=4.0)

    entries.take(ADA, THEIRS, MINUTE)
    entries.put(ADA, an_entry(outcome), THEIRS, NOW)

    assert keys_in(raw) == {key("e")}


def test_erase_and_flush_end_the_row(entries: EntryStore, raw: redis.Redis) -> None:
    """Whatever its pause."""
    fail_in_a_row(entries, raw, pause=60.0)
    assert entries.erase(ADA).note
    assert keys_in(raw) == set()

    fail_in_a_row(entries, raw, pause=60.0)
    entries.flush(lambda entry: False)
    assert keys_in(raw) == set()


def test_message_ends_the_row_once_a_minute(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Each message frees the lease, though; after a minute the next ends the row."""
    fail_in_a_row(entries, raw, pause=60.0)
    entries.drop_refusals([ADA], 6.0)
    assert entries.read(ADA).note is None

    fail_in_a_row(entries, raw, pause=60.0)
    entries.take(ADA, THEIRS, MINUTE, OPERATOR)
    entries.drop_refusals([ADA], 6.0)
    snapshot = entries.read(ADA)
    assert snapshot.note and snapshot.lease is None

    deleted_at = int(raw.get(key("w")))
    raw.set(key("w"), str(deleted_at - 60_000), px=60_000)
    entries.drop_refusals([ADA], 6.0)
    assert entries.read(ADA).note is None


def test_message_without_a_note_does_not_use_up_the_minute(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """The first note that a message meets goes, however many came before."""
    entries.drop_refusals([ADA], 6.0)
    fail_in_a_row(entries, raw, pause=60.0)

    entries.drop_refusals([ADA], 6.0)

    assert entries.read(ADA).note is None


@pytest.mark.parametrize("marker", [b"", b"soon", b"9999999999999"])
def test_message_ends_the_row_after_an_invalid_marker(
    entries: EntryStore, raw: redis.Redis, marker: bytes
) -> None:
    """Of a version before, or by a clock that has been set back."""
    plant(raw, key("w"), marker)
    fail_in_a_row(entries, raw, pause=60.0)

    entries.drop_refusals([ADA], 6.0)

    assert entries.read(ADA).note is None


def test_note_of_the_version_before_answers_while_it_is_stored(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Old processes run beside new ones during an update."""
    raw.set(key("n"), b'{"v":3,"failure":"GraphTimeout"}', px=1000)

    refused = entries.take(ADA, OURS, MINUTE)
    taken = entries.take(ADA, OURS, MINUTE, OPERATOR)

    assert refused.note and isinstance(refused.note.failure, GraphTimeout)
    assert (refused.lease, taken.lease) == (None, OURS)


@pytest.mark.parametrize(
    "note",
    [b"", b"{", b"null", b'{"v":1}', b'{"v":1,"failure":"\xff"}', b'"\xff"', b"\xff"]
    + [b'{"v":4,"ttl":-1,"pause":1}', b'{"v":4,"ttl":1,"pause":%d}' % 10**400],
)
def test_unreadable_note_still_means_that_the_flight_failed(
    entries: EntryStore, raw: redis.Redis, note: bytes
) -> None:
    """An older or newer proxy may have left it."""
    plant(raw, key("n"), note)

    read = entries.read(ADA).note
    assert read and type(read.failure) is GraphUnavailable
    assert entries.take(ADA, OURS, MINUTE).lease is None


def test_release_writes_what_it_keeps(entries: EntryStore, raw: redis.Redis) -> None:
    """An entry whose refresh was held back is written again, and the row stays."""
    store(entries, an_entry(usable_for=MINUTE))
    fail_in_a_row(entries, raw, pause=4.0, age=4.0)
    entries.take(ADA, THEIRS, MINUTE)

    kept = an_entry(usable_for=2 * MINUTE)
    assert entries.release(ADA, THEIRS, keeping=kept, now=NOW)

    snapshot = entries.read(ADA)
    assert isinstance(snapshot, Snapshot) and snapshot.entry == kept
    assert snapshot.lease is None
    assert snapshot.note and snapshot.note.failures == 3


def test_release_does_not_bring_back_a_removed_entry(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """A flush may have removed it after the lease was taken."""
    entries.take(ADA, OURS, MINUTE)

    entries.release(ADA, OURS, keeping=an_entry(), now=NOW)

    assert keys_in(raw) == set()
