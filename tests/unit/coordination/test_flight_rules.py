"""The rules of a flight, each in one line: no store, no threads, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.coordination.flight_rules import (
    is_newer,
    needs_no_refresh,
    postponed,
    result_in,
)
from proxy.domain.answer import Answer, Source
from proxy.domain.entry import Entry
from proxy.domain.failures import GraphTimeout, LookupFailure, Throttled
from proxy.storage.snapshot import Snapshot
from tests.helpers.builders import HOUR, NOW, an_entry, form_of

EMPTY = Snapshot(None, None, None)
OLD, NEW = an_entry(), an_entry(fetched_at=NOW + 1)
HELD_BACK = replace(OLD, refresh_after=NOW + 10)
FAILED = replace(HELD_BACK, failed_refreshes=1)
STALE, EXPIRED = NOW + HOUR, NOW + 2 * HOUR
NOTE = GraphTimeout()


def holding(entry: Entry | None, note: LookupFailure | None = None) -> Snapshot:
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
        (holding(None, NOTE), EMPTY, NOTE),
        (holding(OLD, NOTE), EMPTY, Answer(OLD, Source.COLLAPSED)),
        (holding(OLD), holding(OLD), None),
        (holding(NEW), holding(OLD), Answer(NEW, Source.COLLAPSED)),
        (holding(FAILED, NOTE), holding(OLD), NOTE),
    ],
)
def test_result_in_prefers_the_note_beside_a_previous_entry(
    snapshot, previous, expected
) -> None:
    """Without a previous entry, a usable one beats the note."""
    assert result_in(snapshot, previous, NOW) == expected


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
    assert postponed(OLD, NOTE, now) is None
    assert postponed(None, NOTE, now) is None


def test_postponed_counts_a_failure_only_if_meta_was_asked() -> None:
    """A call that was held back says nothing against the person."""
    asked = postponed(OLD, GraphTimeout(), STALE)
    held_back = postponed(OLD, Throttled(retry_after=3.0, asked=False), STALE)

    assert asked is not None and held_back is not None
    assert (asked.failed_refreshes, held_back.failed_refreshes) == (1, 0)
    assert held_back.refresh_after == STALE + 3.0
