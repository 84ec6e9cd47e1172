"""A Page's gate to Meta: a circuit breaker, shared by all processes.

Up to four causes close it. Each cause is a hash of its own that is deleted an hour
after it mattered last:

    pp:g:{page}:throttled                 failures  in a row, with no success between
    pp:g:{page}:token_rejected:<digest>   level     times it closed, with none between
    pp:g:{page}:permission                until     when it opens, by Redis's clock
    pp:g:{page}:unavailable               probe     the call that tests if it is over

A cause has lapsed once its ``until`` is past: the next caller takes the probe, which
moves ``until`` on by the length of a lease, so that all others find the gate closed
while that one call is made. Its success removes the cause; its failure closes the
gate again, for longer; if it dies, the next caller may probe.

All moments here are Redis's own, so that hosts with different clocks agree.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, cast

from proxy.coordination.doubt import PermissionDoubt
from proxy.coordination.local_gate import RAISED, LocalGate
from proxy.coordination.scripts import load_script
from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE, Backoff
from proxy.domain.failures import (
    HINTS,
    Cause,
    LookupFailure,
    Overloaded,
)
from proxy.domain.profile import Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import GuardedCall, StoreGuard
from proxy.storage.token_digest import token_key

USAGE_TTL = 300.0
"""Seconds for which a reading of Meta's quota headers is used."""

REMEMBERED_FOR = 3600.0
"""Seconds for which failures and back-off are remembered after they mattered last."""

USAGE_RETRY_AFTER = 60.0
"""Seconds after which a caller stopped by the soft limit may ask again."""

REFRESHES_TTL = 86400.0
"""Seconds for which the refreshes are counted after the last one."""

_NO_LIMIT = 1e9
"""A percentage that is never reached."""

log = logging.getLogger(__name__)

_LEVELS = {
    Cause.THROTTLED: logging.WARNING,
    Cause.TOKEN_REJECTED: logging.ERROR,
    Cause.PERMISSION: logging.ERROR,
    Cause.UNAVAILABLE: logging.WARNING,
}
"""A token or a permission does not come back by itself: an operator must act."""


class Permit(NamedTuple):
    """Permission to make one call to Meta.

    *probe* is empty unless the result of this call opens or closes the gate.
    *usage_percent* is the last reading of our quota, None where there is none;
    *noted_token* is the digest of the token used last, None in an empty store.
    """

    token_digest: str
    probe: str
    usage_percent: float | None
    noted_token: str | None = None


@dataclass(frozen=True, slots=True)
class CauseState:
    """One cause as an operator sees it; *closed_for* is in seconds, 0.0 when open."""

    cause: Cause
    closed_for: float
    failures: int
    is_probed: bool


class RefreshCounter(StrEnum):
    """The background refreshes that are counted, over all processes, for operators."""

    REFRESHED = "refreshed"
    REFRESH_FAILED = "refresh_failed"


@dataclass(frozen=True, slots=True)
class GateState:
    """A Page's gate at one moment. *doubted* counts people in a row (100/33)."""

    causes: tuple[CauseState, ...]
    usage_percent: float | None
    doubted: int
    refreshes: Mapping[RefreshCounter, int]


class Gate:
    """One Page's gate.

    Every method costs one trip to the store and raises StoreUnavailable when the
    store cannot be reached, except those that end in ``without_store``.
    """

    def __init__(
        self,
        cache: ProfileCache,
        page: str,
        *,
        guard: StoreGuard,
        backoffs: Mapping[Cause, Backoff],
        probe_for: float,
        usage_soft: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*probe_for* is in seconds: as long as a lease lasts.

        *usage_soft* is a percentage; *monotonic* is in seconds.
        """
        self._cache = cache
        self._page = page
        self._guard = guard
        self._backoffs = backoffs
        self._probe_for = probe_for
        self._usage_soft = usage_soft
        self._local = LocalGate(backoffs, monotonic)
        self._doubt = PermissionDoubt(cache, page, guard)
        self._usage = cache.whole_key(f"u:{{{page}}}")
        self._refreshes = cache.whole_key(f"c:{{{page}}}")
        self._token = cache.whole_key(token_key(page))
        script = cache.client.register_script
        self._acquire = script(load_script("gate", "acquire"))
        self._succeed = script(load_script("gate", "succeed"))
        self._fail = script(load_script("gate", "fail"))
        self._release_probe = script(load_script("gate", "release_probe"))
        self._read_state = script(load_script("gate", "read_state"))
        self._count = script(load_script("count"))

    def acquire(self, token_digest: str, *, in_background: bool = False) -> Permit:
        """Permit one call to Meta, or raise the cause that stops it.

        Raises:
            LookupFailure: the cause that keeps the gate closed longest; or
                Overloaded, *in_background*, above the soft limit on our quota.
        """
        probe = secrets.token_hex(8)
        keys = [*self._causes(token_digest), self._usage, self._token]
        limit = self._usage_soft if in_background else _NO_LIMIT
        args: list[str | int | float] = [probe, _milliseconds(self._probe_for), limit]
        with self._guarded("writes"):
            number, wait, usage, lapsed, last_token = cast(
                "tuple[int, int, bytes, int, bytes]",
                self._acquire(keys=keys, args=args),
            )
        if number < 0:
            raise Overloaded(retry_after=USAGE_RETRY_AFTER)
        if number:
            cause = tuple(Cause)[number - 1]
            self._local.close(cause, token_digest, wait / 1000)
            line = {"page": self._page, "cause": cause.value, "seconds": wait / 1000}
            log.debug("gate stops a call", extra=line)
            raise RAISED[cause](retry_after=wait / 1000, asked=False)
        self._local.open()
        return Permit(
            token_digest,
            probe if lapsed else "",
            _percent(usage),
            last_token.decode("ascii", "replace") or None,
        )

    def acquire_without_store(self, token_digest: str) -> None:
        """Let one call through while the store is away, as far as this process knows.

        Raises:
            LookupFailure: see `LocalGate.acquire`.
        """
        self._local.acquire(token_digest)

    def fail_without_store(self, failure: LookupFailure, result: FetchResult) -> None:
        """Remember, in this process, a *failure* that closes the gate by itself."""
        self._local.fail(failure, result)

    def release_probe(self, permit: Permit) -> None:
        """Give *permit* back unused: the next caller may probe."""
        if permit.probe:
            with self._guarded("writes"):
                keys = self._causes(permit.token_digest)
                self._release_probe(keys=keys, args=[permit.probe])

    def succeed(self, permit: Permit, outcome: Outcome, result: FetchResult) -> None:
        """After a fact from Meta, forget the causes that have lapsed or not closed yet.

        Only the probe opens a gate that is closed. ``unavailable`` (100/33) does
        not show that the permissions are there, so it leaves that cause as it is;
        and only a profile ends the doubt that a row of it has raised.
        """
        causes = dict(zip(Cause, self._causes(result.token_digest), strict=True))
        left_open: list[str] = []
        if isinstance(outcome, Refusal) and outcome.reason is Reason.UNAVAILABLE:
            left_open = [causes.pop(Cause.PERMISSION)]
        keys = [*causes.values(), self._usage, self._doubt.key]
        args: list[str | int | float] = [
            permit.probe,
            *_usage_args(result),
            int(isinstance(outcome, Profile)),
        ]
        with self._guarded("writes"):
            opened = cast("list[int]", self._succeed(keys=keys, args=args))
            if left_open and permit.probe:
                self._release_probe(keys=left_open, args=[permit.probe])
        for number in opened:
            line = {"page": self._page, "cause": [*causes][number - 1].value}
            log.warning("gate opened", extra=line)

    def fail(
        self, permit: Permit, failure: LookupFailure, result: FetchResult
    ) -> float:
        """Count *failure* towards its cause; return for how long the gate is closed.

        In seconds; 0.0: it is not closed, or not yet. The token that counts is the
        one that was used, which may be newer than when the permit was acquired.
        """
        cause = failure.cause
        assert cause is not None  # Meta was asked, so it is about Meta.
        backoff = self._backoffs[cause]
        causes = dict(zip(Cause, self._causes(result.token_digest), strict=True))
        keys = [self._usage, causes.pop(cause), *causes.values()]
        waits = (failure.retry_after or 0.0, backoff.first, backoff.longest)
        asked, first, longest = (
            _milliseconds(min(wait, LONGEST_CLOSURE)) for wait in waits
        )
        args: list[str | int | float] = [
            permit.probe,
            *_usage_args(result),
            asked,
            backoff.failures,
            first,
            longest,
            _milliseconds(REMEMBERED_FOR),
        ]
        with self._guarded("writes"):
            closes, left, failures = cast(
                "tuple[int, int, int]", self._fail(keys=keys, args=args)
            )
        seconds = left / 1000
        if closes:
            log.log(
                _LEVELS[cause],
                "gate closed",
                extra={
                    "page": self._page,
                    "cause": cause.value,
                    "seconds": seconds,
                    "failures": failures,
                    "hint": HINTS[cause],
                },
            )
        if left:
            self._local.close(cause, result.token_digest, seconds)
        return seconds

    def doubt(self, igsid: Igsid) -> bool:
        """Note that Meta does not show *igsid*; return if a permission may be lost."""
        return self._doubt.add(igsid)

    def read_state(self, token_digest: str) -> GateState:
        """Return the gate's state for an operator. Changes nothing, never asks Meta."""
        keys = self._causes(token_digest)
        keys += [self._usage, self._doubt.key, self._refreshes]
        counters = [counter.value for counter in RefreshCounter]
        with self._guarded("reads"):
            rows, usage, doubted, counts = cast(
                "tuple[list[tuple[int, int, int]], bytes, int, list[bytes | None]]",
                self._read_state(keys=keys, args=counters),
            )
        causes = tuple(
            CauseState(cause, left / 1000, failures, bool(probed))
            for cause, (failures, left, probed) in zip(Cause, rows, strict=True)
        )
        refreshes = {
            counter: int(count or 0)
            for counter, count in zip(RefreshCounter, counts, strict=True)
        }
        return GateState(causes, _percent(usage), doubted, refreshes)

    def count(self, counter: RefreshCounter) -> None:
        """Add one to *counter*."""
        args: list[str | int] = [counter.value, _milliseconds(REFRESHES_TTL)]
        with self._guarded("writes"):
            self._count(keys=[self._refreshes], args=args)

    def _causes(self, token_digest: str) -> list[str]:
        """Return the key of each cause, in the order of ``Cause``, in one slot."""
        names = [
            f"{cause}:{token_digest}" if cause is Cause.TOKEN_REJECTED else cause.value
            for cause in Cause
        ]
        return [self._cache.whole_key(f"g:{{{self._page}}}:{name}") for name in names]

    def _guarded(self, kind: str) -> GuardedCall:
        """Guard a call to the one node that holds all keys of a Page's gate."""
        return self._guard.call(kind, self._cache.node_name(token_key(self._page)))


def _milliseconds(seconds: float) -> int:
    return math.floor(seconds * 1000)


def _usage_args(result: FetchResult) -> tuple[str, int]:
    """Return the usage, empty if Meta reported none, and for how long to keep it."""
    percent = "" if result.usage_percent is None else str(result.usage_percent)
    return percent, _milliseconds(USAGE_TTL)


def _percent(stored: bytes) -> float | None:
    try:
        return float(stored)
    except ValueError:
        return None
