"""Suspect a lost permission once Meta shows none of many people in a row (100/33)."""

from __future__ import annotations

import hashlib
from typing import cast

from proxy.coordination.scripts import load_script
from proxy.domain.profile import Igsid
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import StoreGuard

DOUBT_THRESHOLD = 10
"""Different people in a row that Meta does not show, with no profile between them,
until that is taken for a lost permission."""

DOUBT_TTL = 86400.0
"""Seconds for which such a row is kept after its last person."""


class PermissionDoubt:
    """The people in a row that Meta does not show a Page.

    Many in a row mean that we may see no people any more, rather than that all
    of them have gone. A profile ends the row: `Gate.succeed` deletes its *key*.
    """

    def __init__(self, cache: ProfileCache, page: str, guard: StoreGuard) -> None:
        key = f"d:{{{page}}}"
        self.key = cache.whole_key(key)
        self._cache = cache
        self._guard = guard
        self._unprefixed_key = key
        self._add = cache.client.register_script(load_script("doubt"))

    def add(self, igsid: Igsid) -> bool:
        """Add *igsid* to the row and return whether it is long enough for a doubt.

        One trip to the store.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        # Not the id itself: an erasure must reach all that is stored of a person.
        person = hashlib.sha256(igsid.encode()).hexdigest()[:16]
        args: list[str | int] = [person, DOUBT_THRESHOLD, int(DOUBT_TTL * 1000)]
        with self._guard.call("writes", self._cache.node_name(self._unprefixed_key)):
            in_a_row = cast(int, self._add(keys=[self.key], args=args))
        return in_a_row >= DOUBT_THRESHOLD
