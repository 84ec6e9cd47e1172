"""build_page(): one Page's lookup, wired from parts that a test can replace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from proxy.config.settings import Settings
from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.gate import Gate
from proxy.coordination.single_flight import SingleFlight, lease_for
from proxy.domain.backoff import backoffs
from proxy.domain.freshness import Lifetimes
from proxy.domain.profile import DEFAULT_PAGE, Reason
from proxy.lookup.batch import BatchLookup
from proxy.lookup.cached_answers import CachedAnswers
from proxy.lookup.fetcher import Fetcher
from proxy.lookup.graph import Graph
from proxy.lookup.invalidation import Invalidation
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.refresher import Refresher
from proxy.lookup.shared_fetch import SharedFetch
from proxy.lookup.token_rotation import TokenRotation
from proxy.lookup.witness_probe import WitnessProbe
from proxy.observability.metrics import PageMetrics
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache

Submit = Callable[[Hashable, Callable[[], None]], bool]
"""Runs a job in the background, unless one with that key is pending there already."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a Page's lookup, without its client of Meta.

    *now* is epoch seconds, *monotonic* is in seconds, *sleep* waits between two reads
    of another process's flight, and *jitter* draws from [0, 1).
    """

    settings: Settings
    cache: ProfileCache
    store: EntryStore
    allowance: Allowance
    bulkhead: Bulkhead
    metrics: PageMetrics
    submit: Submit
    new_flight: Callable[..., SingleFlight] = SingleFlight
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def of_page(self, name: str, metrics: PageMetrics) -> Parts:
        """The same, with what one Page does not share: its entries, counts and jobs."""
        return replace(
            self,
            store=self.store.of_page(name),
            bulkhead=self.bulkhead.of_page(),
            metrics=metrics,
            submit=_submit_of_page(name, self.submit),
        )


def build_page(parts: Parts, graph: Graph) -> ProfileLookup:
    """Wire one Page's lookup from its *parts* and its client of Meta."""
    store, now = parts.store, parts.now
    gate = _new_gate(parts)
    flight = _new_flight(parts, gate)
    token_rotation = _new_token_rotation(parts, graph)
    fetcher = _new_fetcher(parts, gate, graph, token_rotation)
    refresher = _new_refresher(parts, flight, fetcher, gate)
    cached = CachedAnswers(store=store, refresher=refresher, now=now)
    shared_fetch = SharedFetch(flight=flight, fetcher=fetcher, cached=cached)
    return ProfileLookup(
        store=store,
        gate=gate,
        graph=graph,
        cached=cached,
        shared_fetch=shared_fetch,
        batch=BatchLookup(
            store=store,
            cached=cached,
            shared_fetch=shared_fetch,
            bulkhead=parts.bulkhead,
            now=now,
        ),
        invalidation=Invalidation(
            store=store,
            witnesses=gate.witnesses,
            bulkhead=parts.bulkhead,
            refresher=refresher,
            lease_for=flight.lease_for,
            now=now,
        ),
        token_rotation=token_rotation,
        metrics=parts.metrics,
        now=now,
    )


def _new_flight(parts: Parts, gate: Gate) -> SingleFlight:
    return parts.new_flight(
        parts.store,
        on_unstored=gate.witnesses.take_back,
        graph_timeout=parts.settings.graph_timeout,
        bulkhead=parts.bulkhead,
        now=parts.now,
        monotonic=parts.monotonic,
        sleep=parts.sleep,
    )


def _new_gate(parts: Parts) -> Gate:
    settings = parts.settings
    return Gate(
        parts.cache,
        parts.store.page,
        guard=parts.store.guard,
        backoffs=backoffs(settings.token_retry),
        probe_for=lease_for(settings.graph_timeout),
        usage_soft=settings.usage_soft,
        monotonic=parts.monotonic,
    )


def _new_token_rotation(parts: Parts, graph: Graph) -> TokenRotation:
    return TokenRotation(
        store=parts.store,
        token_digest=graph.token_digest,
        submit=parts.submit,
        monotonic=parts.monotonic,
    )


def _new_fetcher(
    parts: Parts, gate: Gate, graph: Graph, token_rotation: TokenRotation
) -> Fetcher:
    return Fetcher(
        gate=gate,
        allowance=parts.allowance,
        bulkhead=parts.bulkhead,
        graph=graph,
        metrics=parts.metrics,
        token_rotation=token_rotation,
        witness_probe=_new_witness_probe(parts, gate, graph),
        lifetimes=_lifetimes(parts.settings),
        usage_hard=parts.settings.usage_hard,
        now=parts.now,
        monotonic=parts.monotonic,
        jitter=parts.jitter,
    )


def _new_witness_probe(parts: Parts, gate: Gate, graph: Graph) -> WitnessProbe:
    timeout = parts.settings.graph_timeout
    return WitnessProbe(
        gate=gate,
        store=parts.store,
        bulkhead=parts.bulkhead,
        graph=graph,
        metrics=parts.metrics,
        submit=parts.submit,
        graph_timeout=timeout,
        lease_for=lease_for(timeout),
        monotonic=parts.monotonic,
    )


def _new_refresher(
    parts: Parts, flight: SingleFlight, fetcher: Fetcher, gate: Gate
) -> Refresher:
    return Refresher(
        page=parts.store.page,
        flight=flight,
        fetcher=fetcher,
        gate=gate,
        metrics=parts.metrics,
        submit=parts.submit,
        now=parts.now,
    )


def _submit_of_page(name: str, submit: Submit) -> Submit:
    """*submit*, for one Page: two Pages may have jobs about the same number."""
    if name == DEFAULT_PAGE:
        return submit
    return lambda key, job: submit(("page", name, key), job)


def _lifetimes(settings: Settings) -> Lifetimes:
    return Lifetimes(
        profile_ttl=settings.profile_ttl,
        stale_grace=settings.stale_grace,
        picture_margin=settings.picture_margin,
        picture_ttl_assumed=settings.picture_ttl_assumed,
        refusal_ttl={
            Reason.CONSENT_REQUIRED: settings.consent_ttl,
            Reason.BLOCKED: settings.blocked_ttl,
            Reason.NOT_FOUND: settings.not_found_ttl,
            Reason.UNAVAILABLE: settings.unavailable_ttl,
        },
    )
