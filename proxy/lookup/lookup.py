"""One question, one answer: who is this person, and what is known of them here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Protocol, TypeVar

from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE, SEAT_WAIT, Bulkhead
from proxy.coordination.gate import Gate, GateState, Permit, RefreshCounter
from proxy.coordination.single_flight import FLIGHTS_OF_A_CALLER, Flight
from proxy.domain.answer import NO_DIRECTIVES, Answer, Directives, FetchResult, Source
from proxy.domain.entry import Entry, ExpiryReason, Freshness
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    NotCached,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
)
from proxy.domain.freshness import Lifetimes, stamp
from proxy.domain.profile import Igsid, Outcome, Profile, Reason, Refusal
from proxy.logs import code_of, last_four
from proxy.observability.metrics import Metrics, name_of
from proxy.storage.codec import decode
from proxy.storage.entries import Census, EntryStore, Erased, Flushed, Snapshot

__all__ = [
    "Census",
    "Erased",
    "Flushed",
    "GateState",
    "ProfileLookup",
    "Snapshot",
    "RefreshCounter",
    "What",
    "on_message_received",
]

BRIEFLY = 1.0
"""Seconds for which a refusal is kept that a newer token might not have met."""

TOKEN_LOOKED_AT_EVERY = 10.0
"""Seconds between two tries to follow up a changed token, should one fail."""

COUNTED_AT_MOST = 100_000
"""Entries that an operator who wants to know how many there are has looked at."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class What(StrEnum):
    """What a flush is about. A reason flushes the refusals for that reason."""

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


class Graph(Protocol):
    """Whoever asks Meta."""

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Ask about a person once, in at most so many seconds."""
        ...

    def token_digest(self) -> str:
        """Which Page token is in use, without telling what it is."""
        ...


class ProfileLookup:
    """Everything the doors ask for, of one Page's people."""

    def __init__(
        self,
        *,
        store: EntryStore,
        flight: Flight,
        gate: Gate,
        allowance: Allowance,
        bulkhead: Bulkhead,
        graph: Graph,
        metrics: Metrics,
        later: Callable[[Hashable, Callable[[], None]], bool],
        lifetimes: Lifetimes,
        usage_hard: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """*later* runs a job in the background, unless one of that name waits there.

        *usage_hard* is a percentage; *now* is epoch seconds, *monotonic* monotonic
        and the flights' own; *jitter* draws from [0, 1).
        """
        self.store = self._store = store
        self._page = store.page
        self._flight = flight
        self._gate = gate
        self._allowance = allowance
        self._bulkhead = bulkhead
        self._graph = graph
        self._metrics = metrics
        self._later = later
        self._lifetimes = lifetimes
        self._usage_hard = usage_hard
        self._now = now
        self._monotonic = monotonic
        self._jitter = jitter
        self._known_token: str | None = None
        self._look_again_at = -math.inf

    def find(
        self,
        igsid: Igsid,
        *,
        client: str | None = None,
        seen: Snapshot | StoreUnavailable | None = None,
        directives: Directives = NO_DIRECTIVES,
    ) -> Answer:
        """Answer from the cache if it may be used, and from Meta if not.

        A fresh or stale entry costs one read of the store, or none if this process
        has a copy; a stale one is refreshed afterwards. Anything else costs one call
        to Meta, shared by everybody who asks meanwhile and charged to *client*, the
        name of an API key, if this caller has to make it.

        *seen* is what a look at the store has shown a moment ago, if there was one.
        What is stored may be too old for the caller's *directives*; it is answered
        all the same where Meta tells nothing newer.

        Raises:
            LookupFailure: nothing usable is stored, and Meta told nothing.
        """
        return self._counted(lambda: self._find(igsid, client, seen, directives))

    def refresh(self, igsid: Igsid, *, client: str | None = None) -> Answer:
        """Ask Meta now, whatever is stored: one call for all who ask meanwhile.

        Charged as in ``find``. What was stored stays, and is answered to others,
        until Meta has told something else.

        Raises:
            LookupFailure: Meta told nothing.
            StoreUnavailable: nothing could be kept of it.
        """
        deadline = self._flight.deadline()
        self.notice_token()
        answer = self._counted(
            lambda: self._flight.join(
                igsid,
                self._store.read(igsid),
                partial(self._fetch, client=client),
                deadline=deadline,
                may_lead=partial(self._check_allowance, client),
                force=True,
            )
        )
        if not answer.stored:
            raise StoreUnavailable()
        return answer

    def _counted(self, find: Callable[[], Answer]) -> Answer:
        try:
            answer = find()
        except LookupFailure as failure:
            self._count(failure)
            raise
        self._count(answer)
        return answer

    def find_many(
        self,
        igsids: Sequence[Igsid],
        *,
        client: str | None = None,
        directives: Directives = NO_DIRECTIVES,
    ) -> dict[Igsid, Answer | LookupFailure]:
        """`find` for each of *igsids*, in their order, all by one deadline.

        One trip to each server of the store for all whom this process has no copy
        of. Who is missing is fetched side by side, each as if asked for alone: those
        first whom nobody asks about yet, while the others' flights go on. That can
        take seconds, so all are looked at once more afterwards.
        """
        deadline = self._flight.deadline()
        self.notice_token()
        found: dict[Igsid, Answer | LookupFailure] = {}
        asked = list(igsids)
        for _ in range(FLIGHTS_OF_A_CALLER):
            known, missing = self._look_for(asked, directives)
            found |= known | self._fetch_many(missing, client, directives, deadline)
            asked = self._overtaken(found) if missing else []
            if not asked:
                break
        found |= dict.fromkeys(asked, GraphUnavailable())
        for one in found.values():
            self._count(one)
        return {igsid: found[igsid] for igsid in igsids}

    def _look_for(
        self, igsids: list[Igsid], directives: Directives
    ) -> tuple[
        dict[Igsid, Answer | LookupFailure], dict[Igsid, Snapshot | StoreUnavailable]
    ]:
        """What is known of *igsids*; and for whom Meta must be asked, as last seen."""
        found: dict[Igsid, Answer | LookupFailure] = {}
        for igsid in igsids:
            if answer := self._recall(igsid, directives):
                found[igsid] = answer
        looks = self._store.read_many([igsid for igsid in igsids if igsid not in found])
        missing: dict[Igsid, Snapshot | StoreUnavailable] = {}
        for igsid, seen in looks.items():
            told = _told(partial(self._known, igsid, seen, directives))
            if told is None:
                missing[igsid] = seen
            else:
                found[igsid] = told
        return found, missing

    def _overtaken(self, found: dict[Igsid, Answer | LookupFailure]) -> list[Igsid]:
        """Who must be asked about again, after those answered first have waited.

        Meanwhile some may have been erased, have written to the business, or have a
        picture that is dead by now. Of whom something newer is known has that instead.
        """
        overtaken = []
        answers = {i: one for i, one in found.items() if isinstance(one, Answer)}
        for igsid, seen in self._store.read_many(list(answers)).items():
            answer = answers[igsid]
            kept = (
                seen.entry
                if isinstance(seen, Snapshot) and answer.stored
                else answer.entry
            )
            entry = self._usable(kept)
            if entry is None:
                overtaken.append(igsid)
            else:
                found[igsid] = replace(answer, entry=entry)
        return overtaken

    def _fetch_many(
        self,
        missing: dict[Igsid, Snapshot | StoreUnavailable],
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> dict[Igsid, Answer | LookupFailure]:
        if not missing:
            return {}

        def fetch(igsid: Igsid) -> Answer:
            seen = missing[igsid]
            return self._fetch_once(igsid, seen, client, directives, deadline)

        def told_without(igsid: Igsid) -> Answer | LookupFailure:
            kept = self._kept(igsid, missing[igsid])
            too_many = Overloaded(retry_after=SEAT_WAIT)
            return _told(partial(_in_place_of, too_many, kept))

        # While the store is away there are few calls, so the rest of a page need not
        # try: thousands that did would keep the process from its hits.
        away = [i for i in missing if isinstance(missing[i], StoreUnavailable)]
        found = {igsid: told_without(igsid) for igsid in away[CALLS_WITHOUT_STORE:]}
        order = [igsid for igsid in missing if igsid not in found]
        order.sort(key=lambda igsid: _is_flying(missing[igsid]))
        jobs = [partial(_told, partial(fetch, igsid)) for igsid in order]
        try:
            fetched = self._bulkhead.run_parallel(jobs)
        except Overloaded:
            return found | {igsid: told_without(igsid) for igsid in order}
        return found | dict(zip(order, fetched, strict=True))

    def _find(
        self,
        igsid: Igsid,
        client: str | None,
        seen: Snapshot | StoreUnavailable | None,
        directives: Directives,
    ) -> Answer:
        deadline = self._flight.deadline()
        self.notice_token()
        if seen is None:
            if answer := self._recall(igsid, directives):
                return answer
            try:
                seen = self._store.read(igsid)
            except StoreUnavailable as away:
                seen = away
        if answer := self._known(igsid, seen, directives):
            return answer
        return self._fetch_once(igsid, seen, client, directives, deadline)

    def _known(
        self, igsid: Igsid, seen: Snapshot | StoreUnavailable, directives: Directives
    ) -> Answer | None:
        """What may be answered without asking anybody; None: somebody must be.

        Raises:
            NotCached: nobody may be.
        """
        entry = self._kept(igsid, seen)
        if entry and directives.allow(entry, self._now()):
            if isinstance(seen, Snapshot) and not directives.only_if_cached:
                self._refresh_later(igsid, entry, seen)
            return Answer(entry, Source.HIT)
        if directives.only_if_cached:
            raise NotCached()
        return None

    def _fetch_once(
        self,
        igsid: Igsid,
        seen: Snapshot | StoreUnavailable,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> Answer:
        if isinstance(seen, Snapshot):
            with suppress(StoreUnavailable):
                return self._ask_once(igsid, seen, client, directives, deadline)
        return self._find_without_store(igsid, directives, deadline)

    def _ask_once(
        self,
        igsid: Igsid,
        seen: Snapshot,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> Answer:
        """By one call for all who ask; by what is stored, where that was known too."""
        unwanted = self._usable(seen.entry)
        try:
            answer = self._flight.join(
                igsid,
                seen,
                partial(self._fetch, client=client),
                deadline=deadline,
                force=unwanted is not None or directives.no_cache,
                may_lead=partial(self._check_allowance, client),
            )
        except LookupFailure as failure:
            return _in_place_of(failure, self._last_known(igsid) if unwanted else None)
        if unwanted is None:
            return answer
        entry = answer.entry
        if entry.refresh_after and entry.fetched_at == unwanted.fetched_at:
            # Meta does not show the person, which delays a refresh, and no more.
            return replace(answer, source=Source.STALE)
        return replace(answer, is_forced=True)

    def _last_known(self, igsid: Igsid) -> Entry | None:
        """Looked for again: what was there may have been erased since."""
        try:
            return self._kept(igsid, self._store.read(igsid))
        except StoreUnavailable as away:
            return self._kept(igsid, away)

    def _find_without_store(
        self, igsid: Igsid, directives: Directives, deadline: float
    ) -> Answer:
        """By this process's last knowledge; or by one of the few calls there may be."""
        entry = self._usable(self._store.recall_in_outage(igsid))
        if entry and directives.allow(entry, self._now()):
            return Answer(entry, Source.HIT)
        try:
            self._gate.acquire_without_store(self._graph.token_digest())
            answer = self._flight.without_store(
                igsid, self._fetch_without_store, deadline=deadline
            )
        except LookupFailure as failure:
            return _in_place_of(failure, self._last_known(igsid) if entry else None)
        return replace(answer, is_forced=entry is not None)

    def inspect(self, igsid: Igsid) -> Snapshot:
        """What is stored about a person. Asks nobody.

        Raises:
            StoreUnavailable: nobody can tell just now.
        """
        return self._store.read(igsid)

    def erase(self, igsid: Igsid) -> Erased:
        """Drop what is stored about one person, and whatever is under way.

        Raises:
            StoreUnavailable: it cannot be promised that anything is gone.
            Overloaded: as many wait as may; here for half a second.
        """
        with self._bulkhead.waiting():
            return self._store.erase(igsid)

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
            Overloaded: as many wait as may; here for as long as it takes.
        """
        with self._bulkhead.waiting():
            return self._store.flush(
                self._matcher(what, older_than), dry_run=dry_run, every_page=every_page
            )

    def _matcher(
        self, what: What, older_than: float | None
    ) -> Callable[[Entry | None], bool] | None:
        """Which entries *what* covers that are *older_than* seconds; None: all."""
        if what is What.ALL and not older_than:
            return None
        # No moment is compared where none was asked for: what lands during the
        # first pass, or was stored by a host whose clock is ahead, goes too.
        fetched_by = self._now() - older_than if older_than else math.inf

        def matches(entry: Entry | None) -> bool:
            if entry is None:
                return what is What.ALL
            return what.covers(entry.outcome) and entry.fetched_at <= fetched_by

        return matches

    def on_message_received(
        self, people: Collection[Igsid], *, prefetch: bool = False
    ) -> None:
        """`on_message_received` of this Page's people alone."""
        on_message_received([(self, people)], prefetch=prefetch)

    def census(self) -> Census:
        """How many profiles and how many refusals of each reason this Page has.

        Raises:
            StoreUnavailable: nobody can tell just now.
        """

        def kind_of(entry: Entry | None) -> str:
            return name_of(entry.outcome) if entry else "unreadable"

        return self._store.census(kind_of, COUNTED_AT_MOST)

    def check_store(self) -> None:
        """Do nothing, if the store is there.

        Raises:
            StoreUnavailable: it is not.
        """
        self._store.ping()

    def store_warnings(self) -> list[str]:
        """What of the store's settings, or its clock, may break a promise, as reasons.

        Raises:
            StoreUnavailable: nobody can tell just now.
        """
        return self._store.config_warnings(self._now)

    def gate_state(self) -> GateState:
        """What is closed and why, and how much of our quota is used. Asks nobody.

        Raises:
            StoreUnavailable: nobody can tell just now.
        """
        return self._gate.read_state(self._graph.token_digest())

    def _forget_refusals(self, people: Collection[Igsid], prefetch: bool) -> bool:
        """Whether somebody may still have a copy of what was dropped."""
        may_be_copied = self._store.drop_refusals(people, self._flight.lease_for)
        if prefetch:
            for igsid in people:
                self._later(("prefetch", igsid), partial(self._prefetch, igsid))
        return may_be_copied

    def _recall(self, igsid: Igsid, directives: Directives) -> Answer | None:
        """This process's own copy, while it is fresh; the rest needs a look."""
        copy, now = self._store.recall(igsid), self._now()
        entry = decode(copy.stored, igsid) if copy else None
        if entry and entry.freshness(now) is Freshness.FRESH:
            if directives.allow(entry, now):
                return Answer(entry, Source.HIT)
        return None

    def _count(self, answer: Answer | LookupFailure) -> None:
        if isinstance(answer, Answer):
            self._metrics.count_answer(answer, self._now())
        else:
            self._metrics.count_failure(answer)

    def _kept(self, igsid: Igsid, seen: Snapshot | StoreUnavailable) -> Entry | None:
        """What may be used of what was seen; in an outage, of what was copied."""
        if isinstance(seen, StoreUnavailable):
            return self._usable(self._store.recall_in_outage(igsid))
        return self._usable(seen.entry)

    def _usable(self, entry: Entry | None) -> Entry | None:
        if entry and entry.freshness(self._now()) is not Freshness.EXPIRED:
            return entry
        return None

    def _refresh_later(self, igsid: Igsid, entry: Entry, seen: Snapshot) -> None:
        """Have *entry* refreshed if it is stale, unless somebody does or has failed."""
        now = self._now()
        is_due = entry.freshness(now) is Freshness.STALE and entry.refresh_after <= now
        if is_due and seen.lease is None and seen.note is None:
            self._later(igsid, partial(self._refresh, igsid))

    def _prefetch(self, igsid: Igsid) -> None:
        """Whoever asks meanwhile shares it; if it fails they ask for themselves."""
        fetch = partial(self._fetch, in_background=True)
        with suppress(StoreUnavailable):
            self._flight.refresh(igsid, fetch, or_begin=True)

    def _refresh(self, igsid: Igsid) -> None:
        """What becomes of it reaches nobody who has asked."""
        fetch = partial(self._fetch, in_background=True)
        landing: Answer | LookupFailure | StoreUnavailable | None
        try:
            landing = self._flight.refresh(igsid, fetch)
        except StoreUnavailable as away:
            landing = away
        if landing is None or (
            isinstance(landing, LookupFailure) and not landing.asked
        ):
            return  # There was no need, or it was held back.
        if isinstance(landing, Exception):
            ended, tally = "failed", RefreshCounter.REFRESH_FAILED
            line = {"person": last_four(igsid), "result": code_of(landing)}
            log.info("refresh failed", extra={"page": self._page} | line)
        else:
            ended, tally = "succeeded", RefreshCounter.REFRESHED
        self._metrics.refreshes[ended] += 1
        with suppress(StoreUnavailable):
            self._gate.count(tally)

    def _fetch(
        self,
        igsid: Igsid,
        deadline: float,
        *,
        client: str | None = None,
        in_background: bool = False,
    ) -> Entry:
        """Ask Meta if the gate lets us, and tell the gate what came of it."""
        permit = self._gate.acquire(
            self._graph.token_digest(), in_background=in_background
        )
        if permit.noted_token is None:
            self._known_token = None  # The store has been emptied since.
        self._bulkhead.serialize((permit.usage_percent or 0.0) >= self._usage_hard)
        try:
            told = self._ask(igsid, deadline, client)
        except BaseException:
            with suppress(StoreUnavailable):
                self._gate.release_probe(permit)
            raise
        entry = self._stamp(self._report(igsid, told, permit))
        if _depends_on_token(entry) and permit.noted_token not in (
            None,
            told.token_digest,
        ):
            # Another process has a newer token already, which may see more.
            soon = min(entry.usable_until, entry.fetched_at + BRIEFLY)
            return replace(
                entry,
                fresh_until=soon,
                usable_until=soon,
                expiry_reason=ExpiryReason.NEWER_TOKEN,
            )
        return entry

    def _ask(self, igsid: Igsid, deadline: float, client: str | None) -> FetchResult:
        """Ask Meta, at *client*'s expense, unless the store has taken all the time."""
        if self._monotonic() >= deadline:
            raise GraphTimeout(asked=False)
        if client is not None:
            self._allowance.consume(client)
        return self._call(igsid, deadline)

    def _call(self, igsid: Igsid, deadline: float) -> FetchResult:
        started = self._monotonic()
        told = self._graph.fetch(igsid, max(deadline - started, 0.0))
        self._metrics.count_call(told, self._monotonic() - started)
        return told

    def _check_allowance(self, client: str | None) -> None:
        if client is not None:
            self._allowance.check(client)

    def _report(self, igsid: Igsid, told: FetchResult, permit: Permit) -> Outcome:
        """Tell the gate what Meta has told, and give it back, or raise it.

        The store may have gone away meanwhile. What Meta said stands all the same.
        """
        outcome = told.outcome
        with suppress(StoreUnavailable):
            if (vague := _unavailable(outcome)) and self._gate.doubt(igsid):
                outcome = PermissionMissing(vague.said)
            if isinstance(outcome, LookupFailure):
                closed_for = self._gate.fail(permit, outcome, told)
                outcome.retry_after = closed_for or outcome.retry_after
            else:
                self._gate.succeed(permit, outcome, told)
        if isinstance(outcome, LookupFailure):
            raise outcome
        return outcome

    def _fetch_without_store(self, igsid: Igsid, deadline: float) -> Entry:
        """Ask Meta while the store, and with it the gate, is away."""
        told = self._call(igsid, deadline)
        if isinstance(told.outcome, LookupFailure):
            self._gate.fail_without_store(told.outcome, told)
            raise told.outcome
        return self._stamp(told.outcome)

    def _stamp(self, outcome: Outcome) -> Entry:
        return stamp(outcome, self._now(), self._lifetimes, self._jitter())

    def notice_token(self) -> None:
        """See to it, in the background, that a changed token is followed up."""
        digest = self._graph.token_digest()
        if digest != self._known_token and self._monotonic() >= self._look_again_at:
            self._later("token", partial(self._follow_up_token, digest))

    def _follow_up_token(self, digest: str) -> None:
        """Drop what a token now replaced may have made Meta say.

        ``not_found`` and ``unavailable`` depend on what a token may see. The
        new one is noted last: whoever dies before that leaves it to another.
        """
        # A flush takes the leases of all who ask just now, so not again too soon.
        self._look_again_at = self._monotonic() + TOKEN_LOOKED_AT_EVERY
        with suppress(StoreUnavailable):
            if self._store.token_digest() not in (None, digest):
                flushed = self._store.flush(_depends_on_token)
                log.warning(
                    "token changed, what the old one did not show is dropped",
                    extra={"page": self._page, "deleted": flushed.deleted},
                )
            self._store.note_token(digest)
            self._known_token = digest
            self._look_again_at = -math.inf


def on_message_received(
    senders: Sequence[tuple[ProfileLookup, Collection[Igsid]]],
    *,
    prefetch: bool = False,
) -> None:
    """Forget what Meta has refused of people who have written to a business.

    Each Page with its own *senders*; all of the same process. When it returns, nobody
    is told any more what was learned before. With *prefetch*, they are fetched in the
    background, charged to nobody.

    Raises:
        StoreUnavailable: it cannot be promised that anything is forgotten.
        Overloaded: as many wait as may; here for half a second, however many Pages.
    """
    senders = [(page, people) for page, people in senders if people]
    if not senders:
        return
    first = senders[0][0]
    with first._bulkhead.waiting():
        may_be_copied = [
            page._forget_refusals(people, prefetch) for page, people in senders
        ]
        if any(may_be_copied):
            first._store.wait_out_local_caches()


def _told(find: Callable[[], T]) -> T | LookupFailure:
    """What *find* returns, or the failure that it raises."""
    try:
        return find()
    except LookupFailure as failure:
        return failure


def _is_flying(seen: Snapshot | StoreUnavailable) -> bool:
    """Whether somebody else asks Meta about a person just now."""
    return isinstance(seen, Snapshot) and seen.lease is not None


def _in_place_of(failure: LookupFailure, kept: Entry | None) -> Answer:
    """What was *kept*, where Meta told nothing newer; or else the *failure*."""
    if kept is None:
        raise failure
    return Answer(kept, Source.STALE, failure=failure)


def _unavailable(outcome: Outcome | LookupFailure) -> Refusal | None:
    """*outcome*, if it is a 100/33, which may be about us rather than the person."""
    if isinstance(outcome, Refusal) and outcome.reason is Reason.UNAVAILABLE:
        return outcome
    return None


def _depends_on_token(entry: Entry | None) -> bool:
    outcome = entry.outcome if entry else None
    return isinstance(outcome, Refusal) and outcome.reason in (
        Reason.NOT_FOUND,
        Reason.UNAVAILABLE,
    )
