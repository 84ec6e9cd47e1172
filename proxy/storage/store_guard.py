"""Whether the store does as it is told, and how many may ask it at once."""

from __future__ import annotations

import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType

import redis

from proxy.domain.failures import StoreUnavailable

log = logging.getLogger(__name__)

TRIPS_AT_ONCE = 32
"""Trips to the store at once, in each process."""

TURN_WITHIN = 1.0
"""Seconds until a turn has come, unless the store hangs."""

PROBED_EVERY = 1.0
"""Seconds between two trips to a store that hangs."""

HANGS_FROM = 0.6
"""Seconds after which a failure of any kind is one of a store that hangs: two timeouts
and some. It may be the name server that hangs, for which there is no timeout."""

MOST_SAID = 100
"""Characters of an error of the store's that are logged."""

_QUOTE = re.compile("\\s+['\"`]")
_LONG_NUMBER = re.compile("[0-9]{5,}")


class StoreGuard:
    """Whether the store does as it is told; says once that it is away, or back.

    Reads and writes apart: a store that is full still answers the one and
    refuses the other, and would else be said to come and go with every miss.
    So are the nodes of a Cluster, of which one can be away.

    Trips take turns. Hundreds that ask at the same moment for somebody cold would
    open as many connections at once; some would be dropped for it, and others
    would take the crowd for a store that hangs.

    One that hangs costs each process a timeout a second, and not each trip one: once
    a trip has timed out that began after another had, and none came back between,
    nobody tries for a second. Then one trip does, as a probe; or all do, once the
    store has answered somebody else.
    """

    def __init__(
        self,
        node_names: Callable[[], Collection[str]],
        *,
        count_error: Callable[[str], None] = lambda kind: None,
        monotonic: Callable[[], float] = time.monotonic,
        last_reply_at: Callable[[], float] = lambda: -math.inf,
    ) -> None:
        """*node_names* gives all nodes that can fail by themselves, as known now.

        *count_error* is called with the kind of each error; *monotonic* is in seconds.
        *last_reply_at* gives, by that clock, when another part of the process last sent
        a question that the store has answered.
        """
        self._node_names = node_names
        self._count_error = count_error
        self._monotonic = monotonic
        self._last_reply_at = last_reply_at
        self._failing: set[tuple[str, str]] = set()
        self._silent_since: dict[str, float] = {}  # by the places that timed out
        self._probe_at: dict[str, float] = {}  # by the places that hang
        self._lock = threading.Lock()
        # A third of what a semaphore costs, and far less where many wait for one.
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(TRIPS_AT_ONCE):
            self._turns.put(None)

    def call(self, kind: str, node: str = "") -> GuardedCall:
        """Whatever goes wrong with Redis in there is one thing to those above.

        Without a *node*, it is about all of them.
        """
        return GuardedCall(self, kind, node)

    def begin(self, kind: str, node: str) -> tuple[float, bool]:
        """Wait for a turn; when the trip has begun, and whether it is a probe.

        Raises:
            StoreUnavailable: it should not begin.
        """
        try:
            self._turns.get(timeout=TURN_WITHIN)
        except queue.Empty:
            self._count_error(kind)
            raise StoreUnavailable() from None
        if node not in self._probe_at:
            return self._monotonic(), False
        try:
            return self._monotonic(), self._takes_probe(node)
        except StoreUnavailable:
            self._turns.put(None)
            raise

    def end(
        self,
        kind: str,
        node: str,
        began: tuple[float, bool],
        error: BaseException | None,
    ) -> None:
        """Give the turn back, and note what came of the trip.

        Raises:
            StoreUnavailable: the store has not done as it was told.
        """
        self._turns.put(None)
        if error is None:
            if self._failing:
                self._note_success(kind, node)
        elif isinstance(error, redis.RedisError):
            self._note_failure(kind, node, began, error)
            raise StoreUnavailable() from None

    def _note_failure(
        self, kind: str, node: str, began: tuple[float, bool], error: redis.RedisError
    ) -> None:
        self._count_error(kind)
        with self._lock:
            is_first = not self._failing
            self._failing.add((kind, node))
            took = self._monotonic() - began[0]
            if isinstance(error, redis.TimeoutError) or took > HANGS_FROM:
                self._note_timeout(node, *began)
            else:  # It answers, if not as one would wish.
                self._silent_since.pop(node, None)
                self._probe_at.pop(node, None)
        if is_first:
            line = {"error": _kind_of(error), "said": _said_by(error)}
            log.warning("store away", extra=line)

    def _note_timeout(self, node: str, began_at: float, is_probe: bool) -> None:
        """Have *node* left alone for a second, unless it was the first to be silent.

        One that began before that tells of the same moment.
        """
        now = self._monotonic()
        silent_since = self._silent_since.get(node)
        if silent_since is None:
            self._silent_since[node] = now
        elif is_probe or began_at >= silent_since:
            self._probe_at[node] = now + PROBED_EVERY

    def _note_success(self, kind: str, node: str) -> None:
        node_names = self._node_names()
        with self._lock:
            was_failing = bool(self._failing)
            self._failing = {
                (what, where)
                for what, where in self._failing
                if where in node_names and not (what == kind and node in ("", where))
            }
            for known in (self._silent_since, self._probe_at):
                for where in list(known):
                    if where not in node_names or node in ("", where):
                        del known[where]
            is_back = was_failing and not self._failing
        if is_back:
            log.warning("store back")

    def _takes_probe(self, node: str) -> bool:
        """Whether a trip to *node* is the probe, which others leave to it.

        Raises:
            StoreUnavailable: it hangs, and it is not time to try again.
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


def _kind_of(error: redis.RedisError) -> str:
    """The class of what the system said, if it was that; the texts say where."""
    system = error.__cause__ or error.__context__
    return type(system if isinstance(system, OSError) else error).__name__


def _said_by(error: redis.RedisError) -> str | None:
    """The first words of Redis itself. Further on, it repeats what it was asked."""
    if not isinstance(error, redis.ResponseError | redis.AuthenticationError):
        return None  # The client's words, which tell where Redis is.
    words = _QUOTE.split(str(error), maxsplit=1)[0]
    return _LONG_NUMBER.sub("...", words)[:MOST_SAID]


class GuardedCall:
    """One trip to the store, as a ``with``; a class, since a generator costs thrice."""

    __slots__ = ("_began", "_guard", "_kind", "_node")

    def __init__(self, guard: StoreGuard, kind: str, node: str) -> None:
        self._guard = guard
        self._kind = kind
        self._node = node

    def __enter__(self) -> None:
        self._began = self._guard.begin(self._kind, self._node)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guard.end(self._kind, self._node, self._began, error)
