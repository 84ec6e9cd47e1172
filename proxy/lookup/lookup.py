"""ProfileLookup: the use cases of one Page, for the wire and for commands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from proxy.coordination.gate import Gate
from proxy.coordination.gate_keys import GateKeys
from proxy.coordination.gate_state import GateState, Opened, RefreshCounter
from proxy.domain.answer import NO_DIRECTIVES, Answer, Directives
from proxy.domain.backoff import OPERATOR
from proxy.domain.entry import Entry
from proxy.domain.failures import Cause, LookupFailure, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.logs import last_four
from proxy.lookup.batch import BatchLookup
from proxy.lookup.cached_answers import CachedAnswers, ReadResult
from proxy.lookup.graph import Graph
from proxy.lookup.invalidation import Invalidation, What, on_message_received
from proxy.lookup.shared_fetch import SharedFetch
from proxy.lookup.token_rotation import TokenRotation
from proxy.observability.metrics import PageMetrics, name_of
from proxy.storage.entries import EntryStore
from proxy.storage.flush import Census, Flushed
from proxy.storage.removal import Erased
from proxy.storage.snapshot import Snapshot

__all__ = [
    "Census",
    "Erased",
    "Flushed",
    "GateState",
    "Opened",
    "ProfileLookup",
    "RefreshCounter",
    "Snapshot",
]

log = logging.getLogger(__name__)

CENSUS_LIMIT = 100_000
"""Entries that a census reads at most."""


class ProfileLookup:
    """The use cases about one Page's people: lookups, and the operators' actions."""

    def __init__(
        self,
        *,
        store: EntryStore,
        gate: Gate,
        graph: Graph,
        cached: CachedAnswers,
        shared_fetch: SharedFetch,
        batch: BatchLookup,
        invalidation: Invalidation,
        token_rotation: TokenRotation,
        metrics: PageMetrics,
        now: Callable[[], float],
    ) -> None:
        """*now* is epoch seconds."""
        self.store = store
        self.invalidation = invalidation
        self._token_rotation = token_rotation
        self._gate = gate
        self._graph = graph
        self._cached = cached
        self._shared_fetch = shared_fetch
        self._batch = batch
        self._metrics = metrics
        self._now = now

    def find(
        self,
        igsid: Igsid,
        *,
        client: str | None = None,
        snapshot: ReadResult | None = None,
        directives: Directives = NO_DIRECTIVES,
    ) -> Answer:
        """Answer from the cache if it may be used, and from Meta if not.

        A fresh or stale entry costs one read of the store, or none if this process
        has a local copy; a stale one is refreshed afterwards. Anything else costs one
        call to Meta, shared by all who ask meanwhile and charged to *client*, the
        name of an API key, if this caller has to make it.

        *snapshot* is the result of a read of the store a moment ago, if there was one.
        The stored entry may be too old for the caller's *directives*; it is answered
        all the same where Meta returns nothing newer.

        Raises:
            LookupFailure: no usable entry is stored, and Meta returned no outcome.
        """
        return self._counted(
            igsid, lambda: self._find(igsid, client, snapshot, directives)
        )

    def find_many(
        self,
        igsids: Sequence[Igsid],
        *,
        client: str | None = None,
        directives: Directives = NO_DIRECTIVES,
    ) -> dict[Igsid, Answer | LookupFailure]:
        """`find` for each of *igsids*, in their order, all by one deadline.

        One trip to each node for the people without a local copy. Missing people are
        fetched in parallel, each as if asked for alone, those without a flight first.
        """
        deadline = self._shared_fetch.deadline()
        self.notice_token()
        found = self._batch.find_many(
            igsids, client=client, directives=directives, deadline=deadline
        )
        for igsid, result in found.items():
            self._count(igsid, result)
        return found

    def refresh(self, igsid: Igsid, *, client: str | None = None) -> Answer:
        """Call Meta now, whatever is stored: one call for all who ask meanwhile.

        Charged as in ``find``. What was stored stays, and is answered to others,
        until Meta has returned a newer outcome.

        Raises:
            LookupFailure: Meta returned no outcome.
            StoreUnavailable: the result could not be stored.
        """
        deadline = self._shared_fetch.deadline()
        self.notice_token()
        answer = self._counted(
            igsid,
            lambda: self._shared_fetch.join(
                igsid,
                self.store.read(igsid),
                client=client,
                deadline=deadline,
                rule=OPERATOR,
            ),
        )
        if not answer.stored:
            raise StoreUnavailable()
        return answer

    def inspect(self, igsid: Igsid) -> Snapshot:
        """A person's entry, lease and note. No call to Meta.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return self.store.read(igsid)

    def erase(self, igsid: Igsid) -> Erased:
        """Drop what is stored about a person, and any fetch under way."""
        return self.invalidation.erase(igsid)

    def flush(
        self,
        what: What,
        *,
        older_than: float | None = None,
        dry_run: bool = False,
        every_page: bool = False,
    ) -> Flushed:
        """Drop the entries that *what* covers: `Invalidation.flush`."""
        return self.invalidation.flush(
            what, older_than=older_than, dry_run=dry_run, every_page=every_page
        )

    def notice_token(self) -> None:
        """If the Page token has changed, follow the change in the background."""
        self._token_rotation.notice()

    def on_message_received(
        self, people: Collection[Igsid], *, prefetch: bool = False
    ) -> None:
        """`on_message_received` of this Page's people alone."""
        on_message_received([(self.invalidation, people)], prefetch=prefetch)

    def census(self) -> Census:
        """How many profiles and how many refusals of each reason this Page has.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """

        def kind_of(entry: Entry | None) -> str:
            return name_of(entry.outcome) if entry else "unreadable"

        return self.store.census(kind_of, CENSUS_LIMIT)

    def check_store(self) -> None:
        """Do nothing, if the store is there.

        Raises:
            StoreUnavailable: it is not.
        """
        self.store.ping()

    def store_warnings(self) -> list[str]:
        """The store's settings, or its clock, that may break a promise, as reasons.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return self.store.config_warnings(self._now)

    def gate_state(self) -> GateState:
        """The gate's closed causes, and how much of our quota is used. No call to Meta.

        Each process asks every two seconds, so it also takes back what could not be
        taken back while the store failed.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        self._gate.witnesses.take_back_owed()
        return self._gate.read_state(self._graph.token_digest())

    def gate_keys(self) -> tuple[GateKeys, str]:
        """The keys of the gate, and the digest of the token in use."""
        return self._gate.keys, self._graph.token_digest()

    def open_gate(self, cause: Cause) -> Opened:
        """Forget *cause*, so that the next caller asks Meta; return what it was.

        Raises:
            StoreUnavailable: the store cannot be reached, so the cause may remain.
        """
        return self._gate.open(cause, self._graph.token_digest())

    def _find(
        self,
        igsid: Igsid,
        client: str | None,
        read_result: ReadResult | None,
        directives: Directives,
    ) -> Answer:
        deadline = self._shared_fetch.deadline()
        self.notice_token()
        if read_result is None:
            if answer := self._cached.recall(igsid, directives):
                return answer
            read_result = self._cached.read(igsid)
        if answer := self._cached.answer(igsid, read_result, directives):
            return answer
        return self._shared_fetch.fetch(
            igsid, read_result, client=client, directives=directives, deadline=deadline
        )

    def _counted(self, igsid: Igsid, find: Callable[[], Answer]) -> Answer:
        try:
            answer = find()
        except LookupFailure as failure:
            self._count(igsid, failure)
            raise
        self._count(igsid, answer)
        return answer

    def _count(self, igsid: Igsid, result: Answer | LookupFailure) -> None:
        if isinstance(result, Answer):
            source = self._metrics.count_answer(result, self._now())
            outcome = name_of(result.entry.outcome)
        else:
            source, outcome = "none", result.code
            self._metrics.count_failure(result)
        if log.isEnabledFor(logging.DEBUG):
            line = {"page": self.store.page, "person": last_four(igsid)}
            extra = line | {"source": source, "outcome": outcome}
            log.debug("looked up", extra=extra)
