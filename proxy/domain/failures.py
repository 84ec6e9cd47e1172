"""Every failure to learn a fact about a person, each with its one `code`."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from proxy.domain.profile import GraphError


class Cause(StrEnum):
    """Why the gate to Meta is closed. The values are part of our API."""

    THROTTLED = "throttled"
    TOKEN_REJECTED = "token_rejected"
    PERMISSION = "permission"
    UNAVAILABLE = "unavailable"


HINTS: dict[Cause, str] = {
    Cause.THROTTLED: (
        "Wait: Meta is asked again when this is over. If it happens often, ask for"
        " fewer people who are not stored, or raise PROXY_PROFILE_TTL."
    ),
    Cause.TOKEN_REJECTED: (
        "Get a new Page token and write it into the file of the Page's token; it is"
        " used within two seconds."
    ),
    Cause.PERMISSION: (
        "Give the app or the Page at Meta what the call lacks: `asked Meta` has the"
        " code. One call a minute finds out whether it is there."
    ),
    Cause.UNAVAILABLE: (
        "Meta is down, or cannot be reached from here: check name server, firewall and"
        " PROXY_GRAPH_URL. It heals by itself."
    ),
}
"""What an operator can do about each cause, for the log."""

NO_WITNESS_HINT = (
    "Meta has shown no person of this Page yet, so the ids may be another Page's: the"
    " calls by key in GET /admin/stats say who asks. If they are right, give the app or"
    " the Page at Meta what the call lacks."
)
"""In place of the hint about a permission, where people not shown are all there is."""


class LookupFailure(Exception):
    """We could not learn a fact just now. Never stored against a person.

    *said* is Meta's error, if it sent one; *retry_after* is in seconds, if waiting
    may help. *asked* is False if Meta was not asked at all: a gate was closed, or a
    limit of ours was reached.
    """

    code: ClassVar[str]
    """Its name for callers, metrics and logs. Never changes once released."""

    what: str = "the lookup failed"
    """Its description for people, as half a sentence."""

    cause: Cause | None = None
    """The gate's cause that it counts towards, if it is about Meta, or about us as Meta
    sees us. None: it is about one process, one caller or one person."""

    asked = True
    is_shared: ClassVar[bool] = True
    """Whether the followers of the same flight get it too."""

    def __init__(
        self,
        said: GraphError | None = None,
        retry_after: float | None = None,
        *,
        asked: bool | None = None,
        what: str | None = None,
    ) -> None:
        """*what* replaces the description of its class."""
        if what is not None:
            self.what = what
        super().__init__(self.what)
        self.said = said
        self.retry_after = retry_after
        if asked is not None:
            self.asked = asked


class TokenRejected(LookupFailure):
    """Meta does not accept the Page token: it is dead, or not a Page token."""

    code = "token_rejected"
    what = "Meta does not accept the Page token"
    cause = Cause.TOKEN_REJECTED


class PermissionMissing(LookupFailure):
    """The app or the Page may not make this call, about any person."""

    code = "permission_missing"
    what = (
        "the app lacks a permission or a setting that this call needs, or the ids are"
        " another Page's"
    )
    cause = Cause.PERMISSION


class Throttled(LookupFailure):
    """Meta asked us to wait, or would have, so it was not asked."""

    code = "throttled"
    what = "Meta asked us to wait"
    cause = Cause.THROTTLED


class GraphTimeout(LookupFailure):
    """Meta did not answer within the deadline."""

    code = "graph_timeout"
    what = "Meta did not answer in time"
    cause = Cause.UNAVAILABLE


class GraphUnavailable(LookupFailure):
    """Meta did not answer, or its reply could not be understood."""

    code = "graph_unavailable"
    what = "Meta could not be reached or did not make sense"
    cause: Cause | None = Cause.UNAVAILABLE

    @classmethod
    def about_person(cls, said: GraphError | None = None) -> GraphUnavailable:
        """A reply that made no sense about one person, and says nothing of Meta itself.

        It counts towards no gate: others are asked about all the same.
        """
        failure = cls(said)
        failure.cause = None
        return failure


class Overloaded(LookupFailure):
    """This process has reached a limit on concurrent work. Never shared."""

    code = "overloaded"
    what = "too many concurrent requests in this process"
    asked = False
    is_shared = False


class TooManyMisses(LookupFailure):
    """The caller's own allowance of calls to Meta is spent. Never shared.

    ``retry_after`` is when the next allowance begins.
    """

    code = "too_many_misses"
    what = "this API key has used up its calls to Meta for this minute"
    asked = False
    is_shared = False


class NotCached(LookupFailure):
    """The caller sent ``only-if-cached``, and no entry satisfies it. Never shared."""

    code = "not_cached"
    what = "no cached entry, and `only-if-cached` forbids fetching one"
    asked = False
    is_shared = False


FAILURES: tuple[type[LookupFailure], ...] = (
    TokenRejected,
    PermissionMissing,
    Throttled,
    GraphTimeout,
    GraphUnavailable,
    Overloaded,
    TooManyMisses,
    NotCached,
)
"""Every failure of a lookup."""


class StoreUnavailable(Exception):
    """The store cannot be reached, so a promise about what it holds cannot be kept."""

    code: ClassVar[str] = "store_unavailable"
    retry_after = 1.0

    def __init__(self, reason: str = code) -> None:
        """*reason* is the one that ``readyz`` reports."""
        super().__init__("the store cannot be reached")
        self.reason = reason
