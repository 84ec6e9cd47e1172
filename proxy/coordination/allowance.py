"""Limit the calls to Meta that each API key causes per minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import cast

from proxy.coordination.scripts import load_script
from proxy.domain.failures import TooManyMisses
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import StoreGuard

ALLOWANCE_WINDOW = 60.0
"""Seconds for which an allowance of calls lasts."""


class Allowance:
    """The calls to Meta per minute of each API key, counted over all processes."""

    def __init__(
        self,
        cache: ProfileCache,
        *,
        guard: StoreGuard,
        misses_per_minute: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """0 *misses_per_minute* means no limit; *monotonic* is in seconds."""
        self._cache = cache
        self._guard = guard
        self._misses_per_minute = misses_per_minute
        self._monotonic = monotonic
        self._spent_until: dict[str, float] = {}  # by API key name
        self._consume = cache.client.register_script(load_script("consume"))

    def check(self, client: str) -> None:
        """Stop a *client* that has used up its allowance, without a trip to the store.

        Otherwise its callers would take the lease in turns, only to release it.

        Raises:
            TooManyMisses: the allowance was used up a moment ago.
        """
        left = self._spent_until.get(client, 0.0) - self._monotonic()
        if left > 0:
            raise TooManyMisses(retry_after=left)

    def consume(self, client: str) -> None:
        """Count one call to Meta against *client*'s allowance. One trip to the store.

        Raises:
            TooManyMisses: the allowance is used up.
            StoreUnavailable: the store cannot be reached.
        """
        if not self._misses_per_minute:
            return
        key = f"a:{{{client}}}"
        milliseconds = math.floor(ALLOWANCE_WINDOW * 1000)
        args: list[str | int | float] = [self._misses_per_minute, milliseconds]
        with self._guard.call("writes", self._cache.node_name(key)):
            wait = cast(
                int, self._consume(keys=[self._cache.whole_key(key)], args=args)
            )
        if wait:
            seconds = max(wait, 1) / 1000
            self._spent_until[client] = self._monotonic() + seconds
            raise TooManyMisses(retry_after=seconds)
