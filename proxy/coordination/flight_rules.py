"""The rules of a flight: when it is needed, and what a snapshot means to a caller."""

from __future__ import annotations

from dataclasses import replace

from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import PauseRule, is_about_person, postpone
from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import LookupFailure
from proxy.storage.snapshot import Note, Snapshot


def answer_in(snapshot: Snapshot, previous: Snapshot, now: float) -> Answer | None:
    """Return the answer in *snapshot* for a caller that *previous* did not answer."""
    entry = snapshot.entry
    if previous.entry and has_news(snapshot, previous):
        # The previous entry is kept with its refresh postponed, which makes it look
        # new: the note beside it is the news.
        return None
    if entry and is_newer(entry, previous.entry, now):
        return Answer(entry, Source.COLLAPSED)
    return None


def has_news(snapshot: Snapshot, previous: Snapshot) -> bool:
    """Return whether a flight has failed and left its note since *previous*."""
    return snapshot.note is not None and snapshot.note != previous.note


def answers_for(note: Note, left: float, rule: PauseRule) -> float:
    """Return for how many more seconds *note* answers a caller by *rule*.

    It is stored for *left* more seconds, by the store's clock. 0.0: no longer.
    """
    age = max(note.ttl - left, 0.0)
    return max(rule.answers_for(note.pause) - age, 0.0)


def failure_of(note: Note, answers_for: float) -> LookupFailure:
    """Return the failure of *note*, which answers for so many more seconds."""
    failure = note.failure
    if failure.retry_after is None:
        failure.retry_after = answers_for
    return failure


def is_newer(entry: Entry | None, previous: Entry | None, now: float) -> bool:
    """Return whether *entry* is usable and tells more than the *previous* one.

    A refresh that is merely postponed tells no more: it was held back, and Meta was
    not asked. If Meta was asked in vain, its reply makes the entry differ.
    """
    if entry is None or entry.freshness(now) is Freshness.EXPIRED:
        return False
    return previous is None or previous != replace(
        entry, refresh_after=previous.refresh_after
    )


def needs_no_refresh(entry: Entry | None, now: float, *, or_begin: bool) -> bool:
    """Return whether a refresh has nothing to do: *entry* is not due for one.

    With *or_begin*, it is due where there is no usable entry too.
    """
    if entry is None or entry.freshness(now) is Freshness.EXPIRED:
        return not or_begin
    return now < entry.fresh_until or now < entry.refresh_after


def postponed(entry: Entry | None, failure: LookupFailure, now: float) -> Entry | None:
    """Return a stale *entry*, its refresh postponed by *failure*; None if not stale."""
    if entry is None or entry.freshness(now) is not Freshness.STALE:
        return None
    wait = None if is_about_person(failure) else failure.retry_after or 0.0
    return postpone(entry, now, wait, failure.said)
