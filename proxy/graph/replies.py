"""What each reply means: the table of codes, and the reading of a profile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

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
    """One or several codes that mean the same; *subcode* None: whatever it is."""

    codes: Iterable[int]
    subcode: int | None
    meaning: Meaning


ROWS = (
    # About the person.
    Row([230], None, Reason.CONSENT_REQUIRED),
    Row([551], None, Reason.BLOCKED),
    Row([9010], None, Reason.NOT_FOUND),
    Row([100], 2534014, Reason.NOT_FOUND),
    Row([100], 2018218, Reason.NOT_FOUND),
    Row([803], None, Reason.NOT_FOUND),
    Row([100], 33, Reason.UNAVAILABLE),
    # About the token.
    Row([102, 104, 190, 2500], None, TokenRejected),
    # About the app, the Page and the call.
    Row([3, 5, 10], None, PermissionMissing),
    Row([100], None, PermissionMissing),
    Row([code for code in range(200, 300) if code != 230], None, PermissionMissing),
    Row([368, 36103], None, PermissionMissing),
    # About how often we ask.
    Row([4, 17, 32, 613], None, Throttled),
    Row(range(80000, 80015), None, Throttled),
    # Meta's own trouble.
    Row([1, 2], None, GraphUnavailable),
)
"""Every code that is known. What is not here is GraphUnavailable.

By ``code``, then ``error_subcode``, and never by ``type`` (nearly always
OAuthException) or HTTP status (190 comes with 400 and 401, throttles with 400).
What else than 551 means a block is the operator's to say: BLOCKED_CODES.

Source: https://developers.facebook.com/docs/graph-api/guides/error-handling,
https://developers.facebook.com/docs/messenger-platform/error-codes, and what
was seen live (tests/fixtures/graph).
"""

MEANINGS: Mapping[tuple[int, int | None], Meaning] = {
    (code, row.subcode): row.meaning for row in ROWS for code in row.codes
}

BlockedCodes = frozenset[tuple[int, int | None]]
"""The ``(code, subcode)`` pairs that mean a block, beside those of the table."""

_OF_A_PERMISSION = re.compile(r"\brequires\b|permission", re.IGNORECASE)
_TRACE_ID = re.compile(r"[A-Za-z0-9_+/=-]{1,32}")  # a token is several times as long
_LINK = re.compile(r"https?://[^\s\x00-\x1f\x7f]+")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


class PictureRefused(Exception):
    """Meta failed the whole call because ``profile_pic`` was asked for.

    Some accounts get this for every person; without the field they get the
    rest. *said* is as in LookupFailure.
    """

    def __init__(self, said: GraphError) -> None:
        super().__init__("Meta does not know profile_pic for this account")
        self.said = said


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Person(msgspec.Struct):
    """A profile as Meta sends it. Any of it can be null or missing."""

    id: str | None = None
    name: str | None = None
    username: str | None = None
    profile_pic: str | None = None
    is_verified_user: bool | None = None
    follower_count: _Count | None = None
    is_user_follow_business: bool | None = None
    is_business_follow_user: bool | None = None


def read_reply(body: bytes, igsid: Igsid, blocked: BlockedCodes) -> Outcome:
    """Tell what Meta's reply to a question about *igsid* means.

    Raises:
        LookupFailure: it says nothing about the person; which kind says why.
        PictureRefused: the same question without ``profile_pic`` may be answered.
    """
    reply = _read_object(body)
    if "error" in reply:
        return _read_error(reply["error"], igsid, blocked)
    return _read_profile(reply, igsid)


def _read_object(body: bytes) -> dict[str, Any]:
    """The reply as an object. Error pages in HTML have come with any status."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise GraphUnavailable()
    return reply


def _read_error(error: object, igsid: Igsid, blocked: BlockedCodes) -> Outcome:
    """Every key of an error has been seen missing, so none is relied on."""
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
        if error.get("is_transient"):  # So it may be otherwise in a minute.
            raise GraphUnavailable(said)
        return Refusal(igsid, meaning, said)
    if said.code == 100 and "nonexisting field (profile_pic)" in message:
        raise PictureRefused(said)
    raise meaning(said)


def meaning_of(said: GraphError, message: str, blocked: BlockedCodes) -> Meaning:
    """Look *said* up in the table, the more exact row first.

    Code 230 is also "Requires <permission> permission to manage the object",
    which is about the app: taken for a lack of consent, which "is required",
    one lost permission would look like a crowd of refusals. The words can only
    make us more careful, because they may be localised.
    """
    if said.code is None:
        return GraphUnavailable
    exact, plain = (said.code, said.subcode), (said.code, None)
    if exact in blocked or plain in blocked:
        return Reason.BLOCKED
    meaning = MEANINGS.get(exact) or MEANINGS.get(plain) or GraphUnavailable
    if meaning is Reason.CONSENT_REQUIRED and _OF_A_PERMISSION.search(message):
        return PermissionMissing
    return meaning


def may_mean_blocked(code: int, subcode: int | None) -> bool:
    """Whether an operator may take *code* for a block.

    Not where the table has it for a failure, or a dead token would be kept
    against each person asked for; nor for consent, which is told from a lost
    permission by words. Code 100 is a mixed bag, so a subcode of it may.
    """
    if code == 100:
        return subcode is not None
    meaning = MEANINGS.get((code, None), Reason.BLOCKED)
    return isinstance(meaning, Reason) and meaning is not Reason.CONSENT_REQUIRED


def _read_profile(reply: dict[str, Any], igsid: Igsid) -> Profile:
    """A person's profile, if that is what it is, and if it is the right person's.

    ``id`` comes unasked, but one live reply lacked it, so it may be missing
    where a known field shows that this is a profile.
    """
    try:
        person = msgspec.convert(reply, _Person)
    except ValueError:  # Of msgspec, or of half a surrogate pair in a key.
        raise GraphUnavailable() from None
    if person.id != igsid and (person.id or not reply.keys() & set(FIELDS)):
        raise GraphUnavailable()
    picture = _whole(person.profile_pic) or None
    if picture and not _LINK.fullmatch(picture):
        raise GraphUnavailable()
    return Profile(
        igsid=igsid,
        name=_whole(person.name),
        username=_whole(person.username),
        profile_pic=picture,
        is_verified_user=person.is_verified_user,
        follower_count=person.follower_count,
        is_user_follow_business=person.is_user_follow_business,
        is_business_follow_user=person.is_business_follow_user,
        picture_expires_at=picture_expiry.expires_at(picture) if picture else None,
    )


def _whole(text: str | None) -> str | None:
    """*text* without halves of surrogate pairs, which cannot be written as UTF-8.

    Meta escapes an emoji as a pair, and a name cut in the middle of one must
    not cost the whole profile.
    """
    return text and _HALF_A_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _trace_id(value: object) -> str | None:
    return value if isinstance(value, str) and _TRACE_ID.fullmatch(value) else None
