"""Checks that the store accepts writes, and that its settings keep our promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import redis

from proxy.storage.flask_cache import ProfileCache
from proxy.storage.nodes import Nodes
from proxy.storage.store_errors import SCRIPTS
from proxy.storage.store_guard import StoreGuard

PERSISTS, POLICY = "store_persists", "store_policy"
CLOCK_SKEW = "clock_skew"
"""Reasons for a warning about a store that answers."""

CLOCKS_DIFFER_FROM = 30.0
"""Seconds between the store's clock and ours that are too many."""

GOOD_POLICY = "allkeys-lfu"
"""Under any other eviction policy a full store evicts the keys that expire soonest,
gates first, or rejects writes."""

CONFIG_READ_EVERY = 10.0
"""Seconds between two reads of the store's own settings."""

PROBE_KEY = "r:{readyz}"
"""Written to find out whether the store accepts writes."""

PROBE_TTL = 1.0
"""Seconds for which that key lives."""


class StoreHealth:
    """Checks of the store as a whole. Both raise StoreUnavailable."""

    def __init__(
        self, cache: ProfileCache, guard: StoreGuard, monotonic: Callable[[], float]
    ) -> None:
        """*monotonic* is in seconds."""
        self._cache = cache
        self._guard = guard
        self._monotonic = monotonic
        self._warnings: tuple[float, list[str]] = -math.inf, []

    def ping(self) -> None:
        """Check that the store answers and accepts writes.

        One that is full, or a replica, answers and keeps nothing.
        """
        with self._guard.call("reads"):
            self._cache.client.ping()
        with self._guard.call("writes", self._cache.node_name(PROBE_KEY)):
            self._cache.set(PROBE_KEY, b"", PROBE_TTL)

    def recent_reasons(self) -> set[str]:
        """Why calls of this process have failed of late to a store that answers."""
        return self._guard.breaker.reasons()

    def config_warnings(self, now: Callable[[], float]) -> list[str]:
        """The reasons of `config_warnings`, read at most every ten seconds."""
        read_at, warnings = self._warnings
        if self._monotonic() - read_at > CONFIG_READ_EVERY:
            with self._guard.call("reads"):
                warnings = config_warnings(self._cache.nodes, now)
            self._warnings = self._monotonic(), warnings
        return warnings


def config_warnings(nodes: Nodes, now: Callable[[], float]) -> list[str]:
    """The store's own settings that may break a promise, as reasons.

    Also a clock that differs from ours, and a server that runs no scripts; *now* is
    our clock, in epoch seconds. If the
    store does not let us read its settings, INFO has to do: it reports whether
    there is a log of writes, but not whether there are snapshots.
    """
    found = set()
    for node in nodes.clients():
        pipe = node.pipeline(transaction=False)
        pipe.info("memory")
        pipe.info("persistence")
        pipe.config_get("save")
        pipe.eval("return 1", 0)
        pipe.time()
        asked_at = now()
        *replies, script, clock = pipe.execute(raise_on_error=False)
        settings: dict[str, Any] = {}
        for reply in replies:
            if isinstance(reply, dict):
                settings |= reply
            elif not isinstance(reply, redis.ResponseError):
                raise reply
        if settings.get("aof_enabled") or settings.get("save"):
            found.add(PERSISTS)
        if settings.get("maxmemory_policy", GOOD_POLICY) != GOOD_POLICY:
            found.add(POLICY)
        if isinstance(script, redis.ResponseError):
            found.add(SCRIPTS)
        if _differs(clock, asked_at, now()):
            found.add(CLOCK_SKEW)
    return sorted(found)


def _differs(
    clock: tuple[int, int] | redis.RedisError, asked_at: float, answered_at: float
) -> bool:
    """Whether a server's *clock*, its reply to TIME, is wrong by ours.

    The server read it at some moment between our question and its answer. A clock
    that we may not read is not reported as wrong.
    Source: https://redis.io/docs/latest/commands/time/
    """
    if isinstance(clock, redis.ResponseError):
        return False
    if isinstance(clock, redis.RedisError):
        raise clock
    seconds, microseconds = clock
    server = seconds + microseconds / 1e6
    return max(server - answered_at, asked_at - server) > CLOCKS_DIFFER_FROM
