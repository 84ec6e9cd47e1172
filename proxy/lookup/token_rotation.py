"""Follow a changed Page token: drop the refusals that the old one may have caused."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial

from proxy.domain.entry import Entry
from proxy.domain.failures import StoreUnavailable
from proxy.domain.freshness import depends_on_token
from proxy.storage.entries import EntryStore

RETRY_AFTER = 10.0
"""Seconds between two attempts to follow a changed token, if the first one fails."""

log = logging.getLogger(__name__)


class TokenRotation:
    """Notices that a Page's token has changed, and follows the change once."""

    def __init__(
        self,
        *,
        store: EntryStore,
        token_digest: Callable[[], str],
        submit: Callable[[Hashable, Callable[[], None]], bool],
        monotonic: Callable[[], float],
    ) -> None:
        """*submit* runs a job in the background, unless its key is pending there.

        *token_digest* identifies the token in use without revealing it.
        """
        self._store = store
        self._token_digest = token_digest
        self._submit = submit
        self._monotonic = monotonic
        self._followed: str | None = None
        self._retry_at = -math.inf

    def notice(self) -> None:
        """If the token has changed, follow the change in the background."""
        digest = self._token_digest()
        if digest != self._followed and self._monotonic() >= self._retry_at:
            self._submit("token", partial(self._follow, digest))

    def forget(self) -> None:
        """Follow the token again, because the store no longer has its digest."""
        self._followed = None

    def _follow(self, digest: str) -> None:
        """Drop the refusals that a replaced token may have made Meta return.

        The new digest is stored last: a process that dies before that leaves the
        work to another.
        """
        # A flush takes the leases of all fetches under way, so not again too soon.
        self._retry_at = self._monotonic() + RETRY_AFTER
        with suppress(StoreUnavailable):
            if self._store.token_digest() not in (None, digest):
                flushed = self._store.flush(_is_dropped)
                log.warning(
                    "token changed, refusals that depend on it are dropped",
                    extra={"page": self._store.page, "deleted": flushed.deleted},
                )
            self._store.note_token(digest)
            self._followed = digest
            self._retry_at = -math.inf


def _is_dropped(entry: Entry | None) -> bool:
    return entry is not None and depends_on_token(entry.outcome)
