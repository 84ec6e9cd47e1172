"""Every reason why nothing could be learned just now, each with its `code`."""

from __future__ import annotations

from enum import StrEnum

from proxy.domain.profile import GraphError


class LookupFailure(Exception):
    """We could not learn a fact just now. Never stored against a person.

    *said* is what Meta said, where it said something; *retry_after* is in
    seconds, where waiting may help. *asked* is False where Meta was not asked
    at all: a gate was closed, or a limit of ours was reached.
    """

    what = "the lookup failed"
    asked = True
    is_shared = True
    """Whether it is the answer of all who wait for the same fetch."""

    def __init__(
        self,
        said: GraphError | None = None,
        retry_after: float | None = None,
        *,
        asked: bool | None = None,
    ) -> None:
        super().__init__(self.what)
        self.said = said
        self.retry_after = retry_after
        if asked is not None:
            self.asked = asked


class TokenRejected(LookupFailure):
    """Meta does not accept the Page token: it is dead, or not a Page token."""

    what = "Meta does not accept the Page token"


class PermissionMissing(LookupFailure):
    """The app or the Page may not make this call, whoever it is about."""

    what = "the app lacks a permission or a setting that this call needs"


class Throttled(LookupFailure):
    """Meta asked us to wait, or would have, so it was not asked."""

    what = "Meta asked us to wait"


class GraphTimeout(LookupFailure):
    """Nobody learned an answer from Meta within the deadline."""

    what = "Meta did not answer in time"


class GraphUnavailable(LookupFailure):
    """Meta answered, if at all, with something that is no answer."""

    what = "Meta could not be reached or did not make sense"


class Overloaded(LookupFailure):
    """A limit on what this process does at once is reached. Never shared."""

    what = "this process does as much at once as it may"
    asked = False
    is_shared = False


class TooManyMisses(LookupFailure):
    """The caller's own allowance of calls to Meta is spent. Never shared.

    ``retry_after`` is when it begins anew.
    """

    what = "this API key has caused as many calls to Meta as it may in a minute"
    asked = False
    is_shared = False


class NotCached(LookupFailure):
    """The caller wanted what is stored or nothing, and nothing is. Never shared."""

    what = "nothing is stored that may be answered, and nothing else was wanted"
    asked = False
    is_shared = False


class Cause(StrEnum):
    """Why the gate to Meta is closed. The values are part of our API."""

    THROTTLED = "throttled"
    TOKEN_REJECTED = "token_rejected"
    PERMISSION = "permission"
    UNAVAILABLE = "unavailable"


CAUSES: dict[type[LookupFailure], Cause] = {
    Throttled: Cause.THROTTLED,
    TokenRejected: Cause.TOKEN_REJECTED,
    PermissionMissing: Cause.PERMISSION,
    GraphTimeout: Cause.UNAVAILABLE,
    GraphUnavailable: Cause.UNAVAILABLE,
}
"""The failures that say something of Meta, or of us as Meta sees us, and what they
count towards. The others are about one process or one caller."""


class StoreUnavailable(Exception):
    """The store cannot be reached, so a promise about what it holds cannot be kept."""

    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the store cannot be reached")
