"""A gate as one process remembers it, for use while the store is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE, Backoff
from proxy.domain.failures import (
    Cause,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)

RAISED: dict[Cause, type[LookupFailure]] = {
    Cause.THROTTLED: Throttled,
    Cause.TOKEN_REJECTED: TokenRejected,
    Cause.PERMISSION: PermissionMissing,
    Cause.UNAVAILABLE: GraphUnavailable,
}
"""The failure that a call stopped by each cause raises."""


class _Closure(NamedTuple):
    """Why a gate is closed, for which token, and *until* when by our own clock."""

    cause: Cause
    token_digest: str
    until: float


class LocalGate:
    """The last closure of a Page's gate that this process has seen."""

    def __init__(
        self, backoffs: Mapping[Cause, Backoff], monotonic: Callable[[], float]
    ) -> None:
        """*monotonic* is in seconds."""
        self._backoffs = backoffs
        self._monotonic = monotonic
        self._closure: _Closure | None = None

    def open(self) -> None:
        self._closure = None

    def close(self, cause: Cause, token_digest: str, seconds: float) -> None:
        self._closure = _Closure(cause, token_digest, self._monotonic() + seconds)

    def acquire(self, token_digest: str) -> None:
        """Let one call through, as far as this process knows.

        Raises:
            LookupFailure: the cause that stopped a call of this process, or that
                Meta refused one for, a while ago.
        """
        closure = self._closure
        if closure is None:
            return
        left = closure.until - self._monotonic()
        is_about_other_token = closure.cause is Cause.TOKEN_REJECTED and (
            closure.token_digest != token_digest
        )
        if left > 0 and not is_about_other_token:
            raise RAISED[closure.cause](retry_after=left, asked=False)

    def fail(self, failure: LookupFailure, result: FetchResult) -> None:
        """Close the gate after a *failure* that closes it by itself.

        Others do so only about different people, who are not counted here.
        """
        cause = failure.cause
        if cause is None:
            return
        backoff = self._backoffs[cause]
        if backoff.failures == 1:
            wait = failure.retry_after or backoff.first
            self.close(cause, result.token_digest, min(wait, LONGEST_CLOSURE))
