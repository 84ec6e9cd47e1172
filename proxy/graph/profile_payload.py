"""Read a profile as Meta sends it, each field by itself.

Source: https://developers.facebook.com/docs/messenger-platform/instagram/features/user-profile
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from proxy.domain.failures import GraphUnavailable
from proxy.domain.profile import Igsid, Profile
from proxy.graph import picture_expiry
from proxy.graph.lenient_json import read_id

_LINK_CHARACTER = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_HTTP_URL = re.compile(rf"https?://(?![/?#]){_LINK_CHARACTER}+", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_COUNTS_BELOW = 2**53
"""So that every reader of JSON can read a count exactly."""


class ProfileReading(NamedTuple):
    """A profile, and the names of the fields whose values were invalid."""

    profile: Profile
    odd_fields: tuple[str, ...]


class _Odd(Exception):
    """A value is not of its field's type or shape."""


def read_profile(reply: Mapping[str, Any], igsid: Igsid) -> ProfileReading:
    """Read a profile, and check that it is the profile of *igsid*.

    An odd field is None, as one that Meta has left out, and costs no other. Meta
    sends ``id`` unasked, but one live reply lacked it, so it may be missing.

    Raises:
        GraphUnavailable: this is no profile, or that of another person.
    """
    if reply.keys().isdisjoint(_READERS) or not _is_about(reply, igsid):
        raise GraphUnavailable.about_person()
    values, odd_fields = _read_fields(reply)
    picture = values["profile_pic"]
    expires_at = picture_expiry.expires_at(picture) if picture else None
    profile = Profile(igsid=igsid, picture_expires_at=expires_at, **values)
    return ProfileReading(profile, odd_fields)


def _is_about(reply: Mapping[str, Any], igsid: Igsid) -> bool:
    given = reply.get("id")
    return given is None or given == "" or read_id(given) == igsid


def _read_fields(
    reply: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    values: dict[str, Any] = dict.fromkeys(_READERS)
    odd = []
    for name, read in _READERS.items():
        if (value := reply.get(name)) is None:
            continue
        try:
            values[name] = read(value)
        except _Odd:
            odd.append(name)
    return values, tuple(odd)


def _read_text(value: object) -> str:
    """Read text, and replace its lone surrogates, which UTF-8 cannot encode.

    Meta escapes an emoji as a surrogate pair, and may cut a name in the middle of
    one.
    """
    if not isinstance(value, str):
        raise _Odd
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)


def _read_link(value: object) -> str | None:
    """Read a link; an empty one means that there is no picture."""
    if value == "":
        return None
    if not isinstance(value, str) or not _HTTP_URL.fullmatch(value):
        raise _Odd
    return value


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Odd
    return value


def _read_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Odd
    if not 0 <= value < _COUNTS_BELOW:
        raise _Odd
    return value


_READERS: Mapping[str, Callable[[object], object]] = {
    "name": _read_text,
    "username": _read_text,
    "profile_pic": _read_link,
    "is_verified_user": _read_flag,
    "follower_count": _read_count,
    "is_user_follow_business": _read_flag,
    "is_business_follow_user": _read_flag,
}
"""How the value of each field is read. None and a missing field mean the same."""
