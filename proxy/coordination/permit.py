"""What the gate hands out and takes: a permit, and what a failure has led to."""

from __future__ import annotations

import math
from typing import NamedTuple

from proxy.domain.answer import FetchResult
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Igsid

USAGE_TTL = 300.0
"""Seconds for which a reading of Meta's quota headers is used."""

REMEMBERED_FOR = 3600.0
"""Seconds for which failures and back-off are remembered after they mattered last."""

Arg = str | int | float
"""An argument of a script."""


class Permit(NamedTuple):
    """Permission to make one call to Meta.

    *probe* is empty unless the result of this call opens or closes the gate.
    *usage_percent* is the last reading of our quota, None where there is none;
    *noted_token* is the digest of the token used last, None in an empty store.
    *client* is the name of the API key that asks, empty in the background.

    With *witnesses*, the call is to be about the first of them, instead of the caller's
    own question, which *stopped* answers. Where it *decides_permission*, the next
    witness is asked about too if Meta does not show the one before.
    """

    token_digest: str
    probe: str
    usage_percent: float | None
    noted_token: str | None = None
    client: str = ""
    witnesses: tuple[Igsid, ...] = ()
    decides_permission: bool = False
    stopped: LookupFailure | None = None


class Failed(NamedTuple):
    """What a failure has led to.

    The gate is closed for so many seconds, 0.0 if it is not closed, or not yet. The
    witnesses *to_ask* decide about that, and this caller has to have them asked.
    """

    closed_for: float
    to_ask: tuple[Igsid, ...] = ()


class Count(NamedTuple):
    """What a script has made of a failure: *closes* if it closes the gate just now.

    *closed_for* is in seconds, *failures* are those in a row; see `Failed`.
    *is_about_ids* if only people whom Meta does not show say so, and no witness.
    """

    closes: bool
    closed_for: float
    failures: int
    to_ask: tuple[Igsid, ...] = ()
    is_about_ids: bool = False


def milliseconds(seconds: float) -> int:
    return math.floor(seconds * 1000)


def usage_args(result: FetchResult | None = None) -> tuple[str, int]:
    """Return the usage, empty if Meta reported none, and for how long to keep it."""
    percent = result.usage_percent if result else None
    return "" if percent is None else str(percent), milliseconds(USAGE_TTL)


def igsids(stored: list[bytes]) -> tuple[Igsid, ...]:
    """Return the people that a script has returned."""
    return tuple(Igsid(each.decode("ascii")) for each in stored)
