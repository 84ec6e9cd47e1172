"""Guards each call to the store: a circuit breaker, and a limit of concurrent calls."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import NamedTuple

import redis

from proxy.domain.failures import StoreUnavailable
from proxy.storage.store_errors import (
    FULL,
    UNAVAILABLE,
    kind_of,
    reason_of,
    words_of,
)

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 32
"""Calls to the store at once, in each process."""

ACQUIRED_WITHIN = 1.0
"""Seconds within which a slot becomes free, unless the store hangs."""

PROBED_EVERY = 1.0
"""Seconds between two calls to a store that hangs."""

HANGS_FROM = 0.6
"""Seconds after which a failure of any kind is one of a store that hangs: a little more
than two timeouts. It may be the name server that hangs, which has no timeout."""

LASTS_FOR = 10.0
"""Seconds after its last error for which a store counts as full, or as one that refuses
us: some commands succeed there all the same, and would end it each time."""

Begun = tuple[float, bool]
"""When a call began, and whether it is a probe."""


class Failing(NamedTuple):
    """Why a kind of call to a node fails, and when it did so last."""

    reason: str
    at: float


class StoreGuard:
    """Makes each call to the store through a breaker and a limiter.

    Any redis.RedisError in a call becomes StoreUnavailable, which is all that the
    callers need to know.
    """

    def __init__(
        self,
        node_names: Callable[[], Collection[str]],
        *,
        count_error: Callable[[str], None] = lambda kind: None,
        monotonic: Callable[[], float] = time.monotonic,
        last_reply_at: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        """*node_names* returns all nodes that can fail by themselves, as known now.

        *count_error* is called with the kind of each error. *last_reply_at* returns, by
        *monotonic*, when another part of the process last sent a question that the
        store has answered.
        """
        self.count_error = count_error
        self.breaker = CircuitBreaker(node_names, monotonic, last_reply_at)
        self.limiter = ConcurrencyLimiter(CALLS_AT_ONCE)

    def call(self, kind: str, node: str = "") -> GuardedCall:
        """Return the context manager of one call, a read or a write.

        Without a *node*, the call is to all of them.
        """
        return GuardedCall(self, kind, node)


class GuardedCall:
    """One call to the store, as a ``with``; a class, since a generator costs thrice."""

    __slots__ = ("_begun", "_guard", "_kind", "_node")

    def __init__(self, guard: StoreGuard, kind: str, node: str) -> None:
        self._guard = guard
        self._kind = kind
        self._node = node

    def __enter__(self) -> None:
        """Wait for a slot, and begin.

        Raises:
            StoreUnavailable: there is no slot, or the circuit is open.
        """
        guard = self._guard
        if not guard.limiter.acquire():
            guard.count_error(self._kind)
            raise StoreUnavailable()
        try:
            self._begun = guard.breaker.begin(self._node)
        except StoreUnavailable:
            guard.limiter.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the slot, and record the result of the call.

        Raises:
            StoreUnavailable: the store failed.
        """
        guard = self._guard
        guard.limiter.release()
        if error is None:
            if guard.breaker.failing:
                guard.breaker.record_success(self._kind, self._node)
        elif isinstance(error, redis.RedisError):
            guard.count_error(self._kind)
            guard.breaker.record_failure(self._kind, self._node, self._begun, error)
            raise StoreUnavailable(reason_of(error)) from None


class ConcurrencyLimiter:
    """Bounds how many calls are made at once; the others wait for a slot.

    Hundreds that miss the cache at the same moment would otherwise open as many
    connections at once; some would be dropped because of it, and others would take the
    crowd for a store that hangs.
    """

    def __init__(self, slots: int) -> None:
        # A third of what a semaphore costs, and far less where many wait for one.
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(slots):
            self._slots.put(None)

    def acquire(self) -> bool:
        """Take a slot; return False if none became free in time."""
        try:
            self._slots.get(timeout=ACQUIRED_WITHIN)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        """Give the slot back."""
        self._slots.put(None)


class CircuitBreaker:
    """Whether calls to the store fail, by node; logs once that it is away, or back.

    Reads and writes are recorded apart: a full store answers the one and refuses the
    other, and would otherwise be logged as away and back with every miss. So are the
    nodes of a Cluster, of which one can be away.

    A node that hangs costs each process one timeout a second, instead of one for each
    call: after a call has timed out that began after another had timed out, and none
    succeeded in between, the circuit is open for a second. Then one call is let
    through, as a probe; or all are, once the store has answered another part of the
    process.
    """

    def __init__(
        self,
        node_names: Callable[[], Collection[str]],
        monotonic: Callable[[], float],
        last_reply_at: Callable[[], float],
    ) -> None:
        """*node_names*, *monotonic* and *last_reply_at* are those of `StoreGuard`."""
        self._node_names = node_names
        self._monotonic = monotonic
        self._last_reply_at = last_reply_at
        # By the kind of call and its node.
        self.failing: dict[tuple[str, str], Failing] = {}
        self._silent_since: dict[str, float] = {}  # by the nodes that timed out
        self._probe_at: dict[str, float] = {}  # by the nodes that hang
        self._lock = threading.Lock()

    def begin(self, node: str) -> Begun:
        """Return when the call begins, and whether it is a probe.

        Raises:
            StoreUnavailable: the circuit is open.
        """
        if node not in self._probe_at:
            return self._monotonic(), False
        return self._monotonic(), self._take_probe(node)

    def record_success(self, kind: str, node: str) -> None:
        """Record that a call succeeded; needed only while some call is `failing`."""
        node_names = self._node_names()
        with self._lock:
            was_failing = bool(self.failing)
            self.failing = {
                call: failing
                for call, failing in self.failing.items()
                if call[1] in node_names
                and (
                    call[0] != kind or node not in ("", call[1]) or self._lasts(failing)
                )
            }
            for moments in (self._silent_since, self._probe_at):
                for each in list(moments):
                    if each not in node_names or node in ("", each):
                        del moments[each]
            is_back = was_failing and not self.failing
        if is_back:
            log.warning("store back")

    def record_failure(
        self, kind: str, node: str, begun: Begun, error: redis.RedisError
    ) -> None:
        """Record that a call failed with *error*."""
        reason = reason_of(error)
        with self._lock:
            known = {each.reason for each in self.failing.values()}
            is_first = not known or reason not in {UNAVAILABLE, *known}
            self.failing[kind, node] = Failing(reason, self._monotonic())
            took = self._monotonic() - begun[0]
            if isinstance(error, redis.TimeoutError) or took > HANGS_FROM:
                self._record_timeout(node, *begun)
            else:  # It answers, if only with an error.
                self._silent_since.pop(node, None)
                self._probe_at.pop(node, None)
        if is_first:
            log.log(
                logging.WARNING if reason in (UNAVAILABLE, FULL) else logging.ERROR,
                "store full" if reason == FULL else "store away",
                extra={
                    "reason": reason,
                    "error": kind_of(error),
                    "said": words_of(error),
                },
            )

    def reasons(self) -> set[str]:
        """Return why calls have failed of late to a store that answers them."""
        with self._lock:
            failing = list(self.failing.values())
        return {each.reason for each in failing if self._lasts(each)}

    def _lasts(self, failing: Failing) -> bool:
        is_recent = self._monotonic() - failing.at < LASTS_FOR
        return failing.reason != UNAVAILABLE and is_recent

    def _record_timeout(self, node: str, began_at: float, is_probe: bool) -> None:
        """Open the circuit of *node* for a second, unless this is the first timeout.

        A call that began before the first timeout is about the same moment.
        """
        now = self._monotonic()
        silent_since = self._silent_since.get(node)
        if silent_since is None:
            self._silent_since[node] = now
        elif is_probe or began_at >= silent_since:
            self._probe_at[node] = now + PROBED_EVERY

    def _take_probe(self, node: str) -> bool:
        """Whether a call to *node* is the probe, so that no other call is made.

        Raises:
            StoreUnavailable: the node hangs, and the next probe is not due.
        """
        with self._lock:
            probe_at, now = self._probe_at.get(node), self._monotonic()
            if probe_at is None:
                return False
            if self._last_reply_at() > probe_at - PROBED_EVERY:
                del self._probe_at[node]
                self._silent_since.pop(node, None)
                return False
            if now < probe_at:
                raise StoreUnavailable()
            self._probe_at[node] = now + PROBED_EVERY
            return True
