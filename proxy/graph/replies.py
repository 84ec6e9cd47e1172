"""Read Meta's replies: the table of error codes, and the parser of a profile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec

from proxy.domain.failures import (
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import (
    FIELDS,
    GraphError,
    Igsid,
    Outcome,
    Profile,
    Reason,
    Refusal,
)
from proxy.graph import picture_expiry

Meaning = Reason | type[LookupFailure]


class Row(NamedTuple):
    """One or several codes with one meaning; *subcode* None matches any."""

    codes: Iterable[int]
    subcode: int | None
    meaning: Meaning


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
    # Meta's own trouble.
    Row([1, 2], None, GraphUnavailable),
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
_HTTP_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f]+")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Person(msgspec.Struct):
    """A profile as Meta sends it. Any field can be null or missing."""

    id: str | None = None
    name: str | None = None
    username: str | None = None
    profile_pic: str | None = None
    is_verified_user: bool | None = None
    follower_count: _Count | None = None
    is_user_follow_business: bool | None = None
    is_business_follow_user: bool | None = None


def read_reply(body: bytes, igsid: Igsid, blocked: BlockedCodes) -> Outcome:
    """Read Meta's reply to a call about *igsid*.

    Raises:
        LookupFailure: the reply states no fact about the person; its class says why.
        PictureRefused: the same call without ``profile_pic`` may succeed.
    """
    reply = _read_object(body)
    if "error" in reply:
        return _read_error(reply["error"], igsid, blocked)
    return _read_profile(reply, igsid)


def _read_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object. Error pages in HTML have come with any status."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise GraphUnavailable()
    return reply


def _read_error(error: object, igsid: Igsid, blocked: BlockedCodes) -> Outcome:
    """Read an error. Live errors have lacked each key, so all are optional."""
    if not isinstance(error, dict):
        raise GraphUnavailable()
    said = GraphError(
        _number(error.get("code")),
        _number(error.get("error_subcode")),
        _trace_id(error.get("fbtrace_id")),
    )
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    meaning = meaning_of(said, message, blocked)
    if isinstance(meaning, Reason):
        if error.get("is_transient"):  # The answer may differ in a minute.
            raise GraphUnavailable(said)
        return Refusal(igsid, meaning, said)
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


def _read_profile(reply: dict[str, Any], igsid: Igsid) -> Profile:
    """Read a profile, and check that it is the profile of *igsid*.

    Meta sends ``id`` unasked, but one live reply lacked it, so it may be
    missing if a known field shows that this is a profile.
    """
    try:
        person = msgspec.convert(reply, _Person)
    except ValueError:  # From msgspec, or from a lone surrogate in a key.
        raise GraphUnavailable() from None
    if person.id != igsid and (person.id or not reply.keys() & set(FIELDS)):
        raise GraphUnavailable()
    picture = _encodable(person.profile_pic) or None
    if picture and not _HTTP_URL.fullmatch(picture):
        raise GraphUnavailable()
    return Profile(
        igsid=igsid,
        name=_encodable(person.name),
        username=_encodable(person.username),
        profile_pic=picture,
        is_verified_user=person.is_verified_user,
        follower_count=person.follower_count,
        is_user_follow_business=person.is_user_follow_business,
        is_business_follow_user=person.is_business_follow_user,
        picture_expires_at=picture_expiry.expires_at(picture) if picture else None,
    )


def _encodable(text: str | None) -> str | None:
    """Replace the lone surrogates in *text*, which UTF-8 cannot encode.

    Meta escapes an emoji as a surrogate pair, and a name cut in the middle of
    a pair must not cost the whole profile.
    """
    return text and _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _trace_id(value: object) -> str | None:
    return value if isinstance(value, str) and _TRACE_ID.fullmatch(value) else None
