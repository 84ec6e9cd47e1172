"""Read Meta's replies: the table of error codes, and the parser of a profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

from proxy.domain.failures import (
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import GraphError, Igsid, Outcome, Reason, Refusal
from proxy.graph.lenient_json import read_json
from proxy.graph.profile_payload import read_profile

Meaning = Reason | type[LookupFailure]


class Row(NamedTuple):
    """One or several codes with one meaning; *subcode* None matches any."""

    codes: Iterable[int]
    subcode: int | None
    meaning: Meaning


OWN_TROUBLE = (1, 2)
"""The codes by which Meta says that it has failed itself."""

ROWS = (
    # About the person.
    Row([230], None, Reason.CONSENT_REQUIRED),
    Row([551], None, Reason.BLOCKED),
    Row([803, 9010], None, Reason.NOT_FOUND),
    Row([100], 2534014, Reason.NOT_FOUND),
    Row([100], 2018001, Reason.NOT_FOUND),
    Row([100], 2018218, Reason.NOT_FOUND),
    # Meta's table of errors has some subcodes in the column of codes too.
    Row([2018001, 2018218], None, Reason.NOT_FOUND),
    Row([100], 33, Reason.UNAVAILABLE),
    # About the token.
    Row([102, 104, 190, 2500], None, TokenRejected),
    # About the app, the Page and the call.
    Row([3, 5, 10], None, PermissionMissing),
    Row([100], None, PermissionMissing),
    Row([code for code in range(200, 300) if code != 230], None, PermissionMissing),
    Row([368, 36103, 2018247], None, PermissionMissing),
    # About how often we ask.
    Row([4, 17, 32, 613], None, Throttled),
    Row(range(80000, 80015), None, Throttled),
    Row(OWN_TROUBLE, None, GraphUnavailable),
)
"""Every known code. Any other means GraphUnavailable.

By ``code``, then ``error_subcode``, and never by ``type`` (nearly always
OAuthException) or HTTP status (190 comes with 400 and 401, throttles with 400).
Codes other than 551 that mean a block are the operator's choice: BLOCKED_CODES.

Source: https://developers.facebook.com/docs/graph-api/guides/error-handling,
https://developers.facebook.com/docs/messenger-platform/error-codes, and live
replies (tests/fixtures/graph).
"""

MEANINGS: Mapping[tuple[int, int | None], Meaning] = {
    (code, row.subcode): row.meaning for row in ROWS for code in row.codes
}

BlockedCodes = frozenset[tuple[int, int | None]]
"""The ``(code, subcode)`` pairs that mean a block, in addition to the table's."""

_NAMES_A_PERMISSION = re.compile(r"\brequires\b|permission", re.IGNORECASE)
_TRACE_ID = re.compile(r"[A-Za-z0-9_+/=-]{1,32}")  # a token is several times longer


class PictureRefused(Exception):
    """Meta failed the whole call because it asked for ``profile_pic``.

    Some accounts get this for every person; without the field they get all
    other fields. *said* is as in LookupFailure.
    """

    code: ClassVar[str] = "picture_refused"
    """What the log calls it."""

    def __init__(self, said: GraphError) -> None:
        super().__init__("Meta does not know profile_pic for this account")
        self.said = said


class Reading(NamedTuple):
    """A fact about a person, and the names of the fields that could not be read."""

    outcome: Outcome
    odd_fields: tuple[str, ...] = ()


def read_reply(body: bytes, igsid: Igsid, blocked: BlockedCodes) -> Reading:
    """Read Meta's reply to a call about *igsid*.

    Raises:
        LookupFailure: the reply states no fact about the person; its class says why.
        PictureRefused: the same call without ``profile_pic`` may succeed.
    """
    reply = read_json(body)
    if not isinstance(reply, dict):
        # Error pages in HTML have come with any status.
        raise GraphUnavailable()
    if "error" in reply:
        return Reading(_read_error(reply["error"], igsid, blocked))
    return Reading(*read_profile(reply, igsid))


def _read_error(error: object, igsid: Igsid, blocked: BlockedCodes) -> Outcome:
    """Read an error. Live errors have lacked each key, so all are optional."""
    if not isinstance(error, dict):
        raise GraphUnavailable.about_person()
    said = GraphError(
        _number(error.get("code")),
        _number(error.get("error_subcode")),
        _trace_id(error.get("fbtrace_id")),
    )
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    meaning = meaning_of(said, message, blocked)
    is_transient = bool(error.get("is_transient"))
    if isinstance(meaning, Reason):
        if is_transient:  # The answer may differ in a minute.
            raise GraphUnavailable(said)
        return Refusal(igsid, meaning, said)
    if meaning is GraphUnavailable and not (is_transient or said.code in OWN_TROUBLE):
        raise GraphUnavailable.about_person(said)  # A code that is not in the table.
    if said.code == 100 and "nonexisting field (profile_pic)" in message:
        raise PictureRefused(said)
    raise meaning(said)


def meaning_of(said: GraphError, message: str, blocked: BlockedCodes) -> Meaning:
    """Look *said* up in the table, the row with its subcode first.

    Code 230 is also "Requires <permission> permission to manage the object",
    which is about the app. Read as a lack of consent, which "is required", one
    lost permission would look like many refusals. The message can only turn a
    refusal into a failure, never the reverse, because it may be localised.
    """
    if said.code is None:
        return GraphUnavailable
    exact, plain = (said.code, said.subcode), (said.code, None)
    if said.code == 230 and _NAMES_A_PERMISSION.search(message):
        return PermissionMissing
    if exact in blocked or plain in blocked:
        return Reason.BLOCKED
    return MEANINGS.get(exact) or MEANINGS.get(plain) or GraphUnavailable


def may_mean_blocked(code: int, subcode: int | None) -> bool:
    """Whether BLOCKED_CODES may name *code* and *subcode*.

    A code with a subcode may, unless the code is about the token or the quota:
    otherwise a dead token would be stored as a refusal of each person fetched. A code
    by itself may only if it has no other meaning here.
    """
    meaning = MEANINGS.get((code, None))
    if subcode is not None:
        return meaning not in (TokenRejected, Throttled)
    return meaning in (None, Reason.BLOCKED)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _trace_id(value: object) -> str | None:
    return value if isinstance(value, str) and _TRACE_ID.fullmatch(value) else None
