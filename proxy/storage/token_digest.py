"""Which Page token each Page used last, as its digest: never the token itself."""

from __future__ import annotations

from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import StoreGuard

DIGEST_TTL = 400 * 86400.0
"""Seconds for which the digest is kept: longer than any entry lives."""


def token_key(page: str) -> str:
    """The key of the digest of *page*'s token."""
    return f"t:{{{page}}}"


class TokenDigests:
    """The digests of all Pages. Both methods raise StoreUnavailable."""

    def __init__(self, cache: ProfileCache, guard: StoreGuard) -> None:
        self._cache = cache
        self._guard = guard

    def read(self, page: str) -> str | None:
        """The digest of the token that *page* used last; None if none is stored."""
        key = token_key(page)
        with self._guard.call("reads", self._cache.node_name(key)):
            digest = self._cache.get(key)
            return digest.decode("ascii", "replace") if digest is not None else None

    def store(self, page: str, digest: str) -> None:
        """Remember which token *page* uses now."""
        key = token_key(page)
        with self._guard.call("writes", self._cache.node_name(key)):
            self._cache.set(key, digest.encode(), DIGEST_TTL)
