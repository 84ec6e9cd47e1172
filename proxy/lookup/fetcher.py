"""One fetch: the gate's permit, the caller's allowance, Meta's reply, its expiry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.gate import Gate
from proxy.coordination.permit import Permit
from proxy.domain.answer import FetchResult
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
    LookupFailure,
    PermissionMissing,
    StoreUnavailable,
)
from proxy.domain.freshness import (
    Lifetimes,
    shorten_for_newer_token,
    shorten_in_doubt,
    stamp,
)
from proxy.domain.profile import Igsid, Outcome, Reason, Refusal
from proxy.lookup.graph import Graph
from proxy.lookup.token_rotation import TokenRotation
from proxy.lookup.witness_probe import WitnessProbe
from proxy.observability.metrics import PageMetrics


class Fetcher:
    """Makes the calls to Meta for one Page."""

    def __init__(
        self,
        *,
        gate: Gate,
        allowance: Allowance,
        bulkhead: Bulkhead,
        graph: Graph,
        metrics: PageMetrics,
        token_rotation: TokenRotation,
        witness_probe: WitnessProbe,
        lifetimes: Lifetimes,
        usage_hard: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """*usage_hard* is a percentage; *jitter* draws from [0, 1).

        *now* is in epoch seconds, *monotonic* is the flights' clock.
        """
        self._gate = gate
        self._allowance = allowance
        self._bulkhead = bulkhead
        self._graph = graph
        self._metrics = metrics
        self._token_rotation = token_rotation
        self._witness_probe = witness_probe
        self._lifetimes = lifetimes
        self._usage_hard = usage_hard
        self._now = now
        self._monotonic = monotonic
        self._jitter = jitter

    def fetch(
        self,
        igsid: Igsid,
        deadline: float,
        *,
        client: str | None = None,
        is_forced: bool = False,
        in_background: bool = False,
    ) -> Entry:
        """Call Meta if the gate allows it, and report the result to the gate.

        *client* is the key that is charged; *is_forced* if it did not accept an entry.
        """
        permit = self._gate.acquire(
            self._graph.token_digest(), client=client, in_background=in_background
        )
        if permit.stopped:
            self._witness_probe.start(permit)
            raise permit.stopped
        if permit.noted_token is None:
            self._token_rotation.forget()  # The store has been emptied since.
        self._bulkhead.serialize((permit.usage_percent or 0.0) >= self._usage_hard)
        try:
            result = self._charge_and_call(igsid, deadline, client, is_forced)
        except BaseException:
            with suppress(StoreUnavailable):
                self._gate.release_probe(permit)
            raise
        entry = self._report(igsid, result, permit)
        if permit.noted_token in (None, result.token_digest):
            return entry
        # Another process has a newer token already, which may see more.
        return shorten_for_newer_token(entry)

    def check_allowance(self, client: str | None) -> None:
        """Stop a *client* whose allowance is known to be spent, without a trip.

        Raises:
            TooManyMisses: nothing was left a moment ago.
        """
        if client is not None:
            self._allowance.check(client)

    def acquire_without_store(self) -> None:
        """Let one call through while the store is away, as far as this process knows.

        Raises:
            LookupFailure: the gate was closed when this process last knew.
        """
        self._gate.acquire_without_store(self._graph.token_digest())

    def fetch_without_store(
        self, igsid: Igsid, deadline: float, *, client: str | None = None
    ) -> Entry:
        """Call Meta while the store, and with it the gate, is away."""
        result = self._call(igsid, deadline, client)
        if isinstance(result.outcome, LookupFailure):
            self._gate.fail_without_store(result.outcome, result)
            raise result.outcome
        return self._stamp(result.outcome)

    def _charge_and_call(
        self, igsid: Igsid, deadline: float, client: str | None, is_forced: bool
    ) -> FetchResult:
        """Call Meta at *client*'s expense, unless waiting has taken all the time.

        Above the hard limit on our quota, the callers that have a seat take turns.
        """
        with self._bulkhead.turn():
            if self._monotonic() >= deadline:
                raise GraphTimeout(asked=False)
            if client is not None:
                self._allowance.consume(client)
            return self._call(igsid, deadline, client, is_forced)

    def _call(
        self,
        igsid: Igsid,
        deadline: float,
        client: str | None,
        is_forced: bool = False,
    ) -> FetchResult:
        started = self._monotonic()
        result = self._graph.fetch(igsid, max(deadline - started, 0.0))
        took = self._monotonic() - started
        self._metrics.count_call(result, took, client=client, is_forced=is_forced)
        return result

    def _report(self, igsid: Igsid, result: FetchResult, permit: Permit) -> Entry:
        """Report Meta's *result* to the gate, and return its outcome, or raise it.

        The store may have gone away meanwhile. Meta's outcome stands all the same.
        """
        outcome, is_doubted = result.outcome, False
        with suppress(StoreUnavailable):
            if vague := _unavailable(outcome):
                doubt = self._gate.witnesses.note_not_shown(igsid)
                self._witness_probe.ask(doubt.to_ask)
                is_doubted = doubt.is_raised and doubt.may_look is None
                if doubt.is_raised and doubt.may_look is False:
                    outcome = PermissionMissing(vague.said)
            if isinstance(outcome, LookupFailure):
                failed = self._gate.fail(
                    permit, outcome, result, igsid, is_doubt=vague is not None
                )
                self._witness_probe.ask(failed.to_ask)
                outcome.retry_after = failed.closed_for or outcome.retry_after
            else:
                self._gate.succeed(permit, outcome, result)
        if isinstance(outcome, LookupFailure):
            raise outcome
        entry = self._stamp(outcome)
        return shorten_in_doubt(entry) if is_doubted else entry

    def _stamp(self, outcome: Outcome) -> Entry:
        return stamp(outcome, self._now(), self._lifetimes, self._jitter())


def _unavailable(outcome: Outcome | LookupFailure) -> Refusal | None:
    """*outcome*, if it is a 100/33, which may be about us rather than the person."""
    if isinstance(outcome, Refusal) and outcome.reason is Reason.UNAVAILABLE:
        return outcome
    return None
