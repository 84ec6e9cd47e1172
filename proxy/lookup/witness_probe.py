"""Ask Meta about a Page's witnesses: may it look at people at all?"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial

from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.gate import Gate
from proxy.coordination.permit import Permit
from proxy.domain.answer import FetchResult
from proxy.domain.failures import (
    LookupFailure,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
)
from proxy.domain.profile import Igsid, Outcome, Profile, Reason
from proxy.logs import in_background
from proxy.lookup.graph import Graph
from proxy.observability.metrics import PageMetrics
from proxy.storage.entries import EntryStore


class WitnessProbe:
    """Asks about one Page's witnesses in the background, charged to no API key.

    Under the person's lease, so that Meta is asked about a person once at a time; and
    nothing that it learns is stored, so that there is nothing that an erase, a flush or
    a message of the person could come too late for.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        store: EntryStore,
        bulkhead: Bulkhead,
        graph: Graph,
        metrics: PageMetrics,
        submit: Callable[[Hashable, Callable[[], None]], bool],
        graph_timeout: float,
        lease_for: float,
        monotonic: Callable[[], float],
    ) -> None:
        """*submit* runs a job in the background, unless its key is pending there.

        *graph_timeout*, in seconds, bounds all calls of a job together; *lease_for* is
        how long a lease lasts.
        """
        self._gate = gate
        self._store = store
        self._bulkhead = bulkhead
        self._graph = graph
        self._metrics = metrics
        self._submit = submit
        self._graph_timeout = graph_timeout
        self._lease_for = lease_for
        self._monotonic = monotonic

    def start(self, permit: Permit) -> None:
        """Use *permit*, which is to be about its witnesses, in the background."""
        job = in_background("probe", partial(self._run, permit))
        if not self._submit("probe", job):
            self._release(permit)

    def ask(self, witnesses: tuple[Igsid, ...]) -> None:
        """Ask in the background whether Meta shows the *witnesses*, latest first."""
        if witnesses:
            permit = Permit(
                self._graph.token_digest(),
                "",
                None,
                witnesses=witnesses,
                decides_permission=True,
            )
            job = in_background("witnesses", partial(self._run, permit))
            self._submit("witnesses", job)

    def _run(self, permit: Permit) -> None:
        """Ask until a witness is shown; report to the gate."""
        try:
            with suppress(StoreUnavailable):
                self._ask_in_turn(permit)
        except BaseException:
            self._release(permit)
            raise

    def _ask_in_turn(self, permit: Permit) -> None:
        deadline = self._monotonic() + self._graph_timeout
        results = []
        for igsid in permit.witnesses:
            result = self._call(igsid, deadline)
            may_look = _may_look(result.outcome) if result else None
            if result and may_look is None:
                assert isinstance(result.outcome, LookupFailure)
                self._gate.fail(permit, result.outcome, result, igsid)
                return
            if result and may_look:
                self._gate.settle(permit, True, result)
                return
            results.append(result)
        *_, last = results
        if last is None or None in results:
            self._release(permit)  # One of them might have been shown.
        else:
            self._gate.settle(permit, False, last)

    def _call(self, igsid: Igsid, deadline: float) -> FetchResult | None:
        """Call Meta about a witness; None if that cannot be done now.

        There is no seat or no time, or another asks about the same person, or Meta
        has just failed about them. None too if the lease is lost meanwhile: the person
        may have been erased, and a failure about them would be counted with their mark.
        """
        lease, is_ours = secrets.token_hex(8), True
        with suppress(Overloaded), self._bulkhead.seat():
            if self._store.take(igsid, lease, self._lease_for).lease != lease:
                return None
            try:
                result = self._call_alone(igsid, deadline)
            finally:
                with suppress(StoreUnavailable):
                    is_ours = self._store.release(igsid, lease)
            return result if is_ours else None
        return None

    def _call_alone(self, igsid: Igsid, deadline: float) -> FetchResult | None:
        """Call Meta from a seat, in turn with others above the quota's hard limit."""
        with self._bulkhead.turn():
            started = self._monotonic()
            if started >= deadline:
                return None
            result = self._graph.fetch(igsid, deadline - started)
            self._metrics.count_call(result, self._monotonic() - started)
            return result

    def _release(self, permit: Permit) -> None:
        """Let the next caller probe, by another witness."""
        with suppress(StoreUnavailable):
            self._gate.release_probe(permit)


def _may_look(outcome: Outcome | LookupFailure) -> bool | None:
    """Whether Meta may look at people, by its *outcome* about one whom it has shown.

    None: the outcome says nothing of that. A witness may have blocked the business or
    be gone since, but a lack of consent is what a lost permission can look like.
    """
    match outcome:
        case Profile():
            return True
        case PermissionMissing():
            return False
        case LookupFailure():
            return None
        case refusal:
            return refusal.reason in (Reason.BLOCKED, Reason.NOT_FOUND)
