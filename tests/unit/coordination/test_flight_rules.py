"""The rules of a flight, each in one line: no store, no threads, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.coordination.flight_rules import (
    answer_in,
    answers_for,
    has_news,
    is_newer,
    needs_no_refresh,
    postponed,
)
from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import FORCED, OPERATOR, PLAIN
from proxy.domain.entry import Entry
from proxy.domain.failures import GraphTimeout, GraphUnavailable, Throttled
from proxy.storage.codec import decode_note
from proxy.storage.snapshot import Note, Snapshot
from tests.helpers.builders import HOUR, NOW, an_entry, form_of

EMPTY = Snapshot(None, None, None)
OLD, NEW = an_entry(), an_entry(fetched_at=NOW + 1)
HELD_BACK = replace(OLD, refresh_after=NOW + 10)
FAILED = replace(HELD_BACK, failed_refreshes=1)
STALE, EXPIRED = NOW + HOUR, NOW + 2 * HOUR
NOTE, OTHER_NOTE = Note(b"1", GraphTimeout()), Note(b"2", GraphTimeout())


def holding(entry: Entry | None, note: Note | None = None) -> Snapshot:
    return Snapshot(form_of(entry) if entry else None, None, note)


@pytest.mark.parametrize(
    ("entry", "previous", "now", "expected"),
    [
        (None, None, NOW, False),
        (OLD, None, NOW, True),
        (OLD, None, EXPIRED, False),
        (OLD, OLD, NOW, False),
        (NEW, OLD, NOW, True),
        (HELD_BACK, OLD, NOW, False),
        (FAILED, OLD, NOW, True),
    ],
)
def test_is_newer_needs_a_usable_entry_that_tells_more(
    entry, previous, now, expected
) -> None:
    """A refresh that was only held back adds nothing to the previous entry."""
    assert is_newer(entry, previous, now) is expected


@pytest.mark.parametrize(
    ("snapshot", "previous", "expected"),
    [
        (EMPTY, EMPTY, None),
        (holding(OLD), EMPTY, Answer(OLD, Source.COLLAPSED)),
        (holding(None, NOTE), EMPTY, None),
        (holding(OLD, NOTE), EMPTY, Answer(OLD, Source.COLLAPSED)),
        (holding(OLD), holding(OLD), None),
        (holding(NEW), holding(OLD), Answer(NEW, Source.COLLAPSED)),
        (holding(FAILED, NOTE), holding(OLD), None),
        (holding(FAILED, OTHER_NOTE), holding(OLD, NOTE), None),
        (holding(NEW, NOTE), holding(OLD, NOTE), Answer(NEW, Source.COLLAPSED)),
    ],
)
def test_answer_in_prefers_a_new_note_beside_a_previous_entry(
    snapshot, previous, expected
) -> None:
    """Without a previous entry, a usable one beats the note."""
    assert answer_in(snapshot, previous, NOW) == expected


@pytest.mark.parametrize(
    ("snapshot", "previous", "expected"),
    [
        (holding(None), EMPTY, False),
        (holding(None, NOTE), EMPTY, True),
        (holding(None, NOTE), holding(None, NOTE), False),
        (holding(None, OTHER_NOTE), holding(None, NOTE), True),
        (holding(None), holding(None, NOTE), False),
    ],
)
def test_has_news_of_a_note_that_was_not_there(snapshot, previous, expected) -> None:
    """The note read first is the row of failures before, not the news."""
    assert has_news(snapshot, previous) is expected


def a_note(pause: float) -> Note:
    return Note(b"", GraphTimeout(), failures=3, pause=pause, ttl=600.0)


@pytest.mark.parametrize(
    ("pause", "rule", "age", "expected"),
    [
        (4.0, PLAIN, 0.0, 4.0),
        (4.0, PLAIN, 3.5, 0.5),
        (4.0, PLAIN, 4.0, 0.0),
        (60.0, PLAIN, 59.0, 1.0),
        (1.0, FORCED, 0.5, 0.5),
        (2.0, FORCED, 0.0, 2.0),
        (4.0, FORCED, 1.5, 0.5),
        (60.0, FORCED, 29.0, 1.0),
        (60.0, FORCED, 30.0, 0.0),
        (60.0, OPERATOR, 0.0, 0.0),
    ],
)
def test_answers_for_the_pause_or_the_part_of_it_by_rule(
    pause, rule, age, expected
) -> None:
    """Forced callers pass after max(2 s, half), and never later than all others."""
    assert answers_for(a_note(pause), 600.0 - age, rule) == pytest.approx(expected)


@pytest.mark.parametrize("rule", [PLAIN, FORCED])
def test_answers_for_as_long_as_a_note_of_the_version_before_is_stored(rule) -> None:
    """It is stored for a second, and has no pause in it."""
    note = decode_note(b'{"v":3,"failure":"GraphTimeout"}')

    assert answers_for(note, 0.25, rule) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("entry", "now", "or_begin", "expected"),
    [
        (None, NOW, False, True),
        (None, NOW, True, False),
        (OLD, EXPIRED, False, True),
        (OLD, EXPIRED, True, False),
        (OLD, NOW, False, True),
        (OLD, STALE, False, False),
        (replace(OLD, refresh_after=STALE + 1), STALE, False, True),
    ],
)
def test_needs_no_refresh_unless_stale_and_due_or_wanted(
    entry, now, or_begin, expected
) -> None:
    assert needs_no_refresh(entry, now, or_begin=or_begin) is expected


@pytest.mark.parametrize("now", [NOW, EXPIRED])
def test_postponed_is_none_for_an_entry_that_is_not_stale(now) -> None:
    """A fresh entry needs no refresh, and an expired one is not kept."""
    assert postponed(OLD, GraphTimeout(), now) is None
    assert postponed(None, GraphTimeout(), now) is None


def test_postponed_counts_a_failure_only_if_meta_was_asked() -> None:
    """A call that was held back says nothing against the person."""
    asked = postponed(OLD, GraphTimeout(), STALE)
    held_back = postponed(OLD, Throttled(retry_after=3.0, asked=False), STALE)

    assert asked is not None and held_back is not None
    assert (asked.failed_refreshes, held_back.failed_refreshes) == (1, 0)
    assert held_back.refresh_after == STALE + 3.0


def test_postponed_counts_no_failure_that_closed_the_gate() -> None:
    """It is about us, here as in the note."""
    closed = postponed(OLD, GraphUnavailable(retry_after=5.0), STALE)

    assert closed is not None
    assert (closed.failed_refreshes, closed.refresh_after) == (0, STALE + 5.0)
