"""Invalidation: erase a person, flush entries, and drop refusals after a message."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from enum import StrEnum

from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.witnesses import Witnesses
from proxy.domain.entry import Entry
from proxy.domain.profile import Igsid, Outcome, Profile, Reason
from proxy.lookup.refresher import Refresher
from proxy.storage.entries import EntryStore
from proxy.storage.flush import Flushed
from proxy.storage.removal import Erased

Matcher = Callable[[Entry | None], bool]
"""Picks the entries of a flush; None stands for an entry that cannot be read."""


class What(StrEnum):
    """The entries that a flush covers. A reason covers the refusals for that reason."""

    ALL = "all"
    PROFILES = "profiles"
    REFUSALS = "refusals"
    CONSENT_REQUIRED = Reason.CONSENT_REQUIRED.value
    BLOCKED = Reason.BLOCKED.value
    NOT_FOUND = Reason.NOT_FOUND.value
    UNAVAILABLE = Reason.UNAVAILABLE.value

    def covers(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Profile):
            return self in (What.ALL, What.PROFILES)
        return self in (What.ALL, What.REFUSALS) or self.value == outcome.reason.value


class Invalidation:
    """Drops what is stored about one Page's people, in every process."""

    def __init__(
        self,
        *,
        store: EntryStore,
        witnesses: Witnesses,
        bulkhead: Bulkhead,
        refresher: Refresher,
        lease_for: float,
        now: Callable[[], float],
    ) -> None:
        """*lease_for* is how long a lease lasts, in seconds."""
        self._store = store
        self._witnesses = witnesses
        self._bulkhead = bulkhead
        self._refresher = refresher
        self._lease_for = lease_for
        self._now = now

    def erase(self, igsid: Igsid) -> Erased:
        """Drop what is stored about one person, and any fetch under way.

        Raises:
            StoreUnavailable: it cannot be promised that anything is gone.
            Overloaded: too many callers wait already; this one would for half a second.
        """
        with self._bulkhead.waiting():
            # The entry first: a fetch that has lost its lease takes back what it has
            # noted of the person, however late.
            erased = self._store.erase(igsid, wait=False)
            forgotten = self._witnesses.forget(igsid)
            self._store.wait_out_local_caches()
        return replace(erased, witness=forgotten.witness, row=forgotten.row)

    def flush(
        self,
        what: What,
        *,
        older_than: float | None = None,
        dry_run: bool = False,
        every_page: bool = False,
    ) -> Flushed:
        """Drop the entries *what* covers that were fetched *older_than* seconds ago.

        Of this Page's people, or of those of *every_page*. Entries that cannot be
        read go with ``all``, whatever their age.

        Raises:
            StoreUnavailable: some of them may still be there.
            Overloaded: too many callers wait already; this one would until all is gone.
        """
        with self._bulkhead.waiting():
            return self._store.flush(
                flush_matcher(what, older_than, self._now()),
                dry_run=dry_run,
                every_page=every_page,
            )

    def waiting(self) -> AbstractContextManager[None]:
        """Hold the thread of a caller who waits, one of the few that all Pages share.

        Raises:
            Overloaded: too many callers wait already.
        """
        return self._bulkhead.waiting()

    def drop_refusals(self, people: Collection[Igsid], *, prefetch: bool) -> bool:
        """Drop the refusals of *people*, who have written to the business.

        With *prefetch*, fetch them in the background. True means that a process may
        still have a local copy: `wait_out_local_caches` before promising anything.

        Raises:
            StoreUnavailable: it cannot be promised that anything is dropped.
        """
        may_be_copied = self._store.drop_refusals(people, self._lease_for)
        if prefetch:
            for igsid in people:
                self._refresher.prefetch_later(igsid)
        return may_be_copied

    def wait_out_local_caches(self) -> None:
        """Wait until no process uses a local copy of what was dropped, of any Page."""
        self._store.wait_out_local_caches()


def on_message_received(
    senders: Sequence[tuple[Invalidation, Collection[Igsid]]],
    *,
    prefetch: bool = False,
) -> None:
    """Drop the refusals of people who have written to a business.

    *senders* has a row for each Page, all of the same process. When this returns, no
    caller receives what was learned before. With *prefetch*, the people are fetched in
    the background, charged to no API key. All Pages together take one thread, and one
    wait of half a second.

    Raises:
        StoreUnavailable: it cannot be promised that anything is dropped.
        Overloaded: too many callers wait already.
    """
    senders = [(page, people) for page, people in senders if people]
    if not senders:
        return
    any_page, _ = senders[0]
    with any_page.waiting():
        may_be_copied = [
            page.drop_refusals(people, prefetch=prefetch) for page, people in senders
        ]
        if any(may_be_copied):
            any_page.wait_out_local_caches()


def flush_matcher(what: What, older_than: float | None, now: float) -> Matcher | None:
    """The entries *what* covers that are *older_than* seconds; None picks all."""
    if what is What.ALL and not older_than:
        return None
    # Without *older_than* no moments are compared, because entries stored during
    # the first pass, or by a host whose clock is ahead, must go too.
    fetched_by = now - older_than if older_than else math.inf

    def matches(entry: Entry | None) -> bool:
        if entry is None:
            return what is What.ALL
        return what.covers(entry.outcome) and entry.fetched_at <= fetched_by

    return matches
