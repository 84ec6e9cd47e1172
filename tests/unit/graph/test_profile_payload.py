"""A profile as Meta sends it, with any value in any field."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.entry import Entry
from proxy.domain.failures import GraphUnavailable
from proxy.domain.profile import FIELDS, Igsid, Profile
from proxy.graph.profile_payload import read_profile
from proxy.graph.replies import read_reply
from proxy.storage import codec
from tests.helpers.builders import ADA

PICTURE = "https://scontent.cdninstagram.com/v/t51/ada.jpg?oh=00_Af&oe=6A842163"

WHOLE = {
    "name": "Ada \N{SPARKLES}",
    "username": "ada",
    "profile_pic": PICTURE,
    "is_verified_user": True,
    "follower_count": 12,
    "is_user_follow_business": True,
    "is_business_follow_user": False,
}
"""A reply with a valid value in each field, without its id."""

PROFILE = Profile(igsid=ADA, picture_expires_at=1787044195.0, **WHOLE)
EMPTY_PROFILE = Profile(ADA, None, None, None, None, None, None, None, None)


def read(**fields: object) -> Profile:
    """Return the profile in a reply with *fields*, none of which is odd."""
    profile, odd_fields = read_profile({"id": ADA} | fields, ADA)
    assert odd_fields == ()
    return profile


def without(profile: Profile, *fields: str) -> Profile:
    """Return *profile* with null in *fields*; without its picture it has no expiry."""
    if "profile_pic" in fields:
        fields = (*fields, "picture_expires_at")
    return replace(profile, **dict.fromkeys(fields))


def test_profile_is_read_with_all_its_fields() -> None:
    """And with the moment at which its picture dies."""
    assert read(**WHOLE) == PROFILE


@pytest.mark.parametrize("body", [{"name": None}, dict.fromkeys(FIELDS)])
def test_missing_or_null_field_is_none(body: dict[str, Any]) -> None:
    """Meta leaves out some fields and sends null for others."""
    assert read(**body) == EMPTY_PROFILE


def test_zero_false_and_empty_text_are_kept() -> None:
    """They are values, unlike None."""
    profile = read(name="", follower_count=0, is_verified_user=False)

    assert (profile.name, profile.follower_count) == ("", 0)
    assert profile.is_verified_user is False


def test_empty_picture_is_none() -> None:
    """It is how some replies say that there is none, so it is not odd."""
    assert read(profile_pic="") == EMPTY_PROFILE


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        ("Ada \ud83d", "Ada \ufffd"),
        ("\udc4b Ada", "\ufffd Ada"),
        ("\udc4b\ud83d", "\ufffd\ufffd"),
        ("Ada \U0001f44b", "Ada \N{WAVING HAND SIGN}"),
    ],
)
def test_lone_surrogate_in_a_name_is_replaced(name: str, read_as: str) -> None:
    """Meta escapes an emoji as a pair, and may cut a name in the middle of one."""
    profile = read(name=name, username=name)

    assert (profile.name, profile.username) == (read_as, read_as)


# Odd fields.

ODD: dict[str, list[object]] = {
    "name": [1, ["Ada"], {"first": "Ada"}, True, 0, False, [], {}],
    "username": [1, ["ada"], {}, False],
    "profile_pic": [
        *(1, False, [], {}, {"data": {"url": PICTURE}}),
        *("javascript:alert(1)", "//scontent.cdninstagram.com/a.jpg"),
        *("data:image/png;base64,AAAA", "ftp://host/a.jpg", "no link"),
        *("https://", "https:///a.jpg", "https://?oe=6A842163", "http://#"),
        *("https://host/a b.jpg", " https://host/a.jpg", "https://host/a.jpg\n"),
        *("https://host/a\r\nSet-Cookie: x=y", "https://host/a\x00", "https://h/\x7f"),
        *("https://host/\x85", "https://host/\x9f", "https://host/\u2028"),
        *("https://host/\ud800", "https://host/\xa0"),
    ],
    "is_verified_user": ["true", 1, 0, "", []],
    "follower_count": [
        *("12", "", 12.5, 12.0, -1, True, [], {}),
        *(2**53, 10**30, 10**4000, math.nan, math.inf, -math.inf),
    ],
    "is_user_follow_business": ["no", 0],
    "is_business_follow_user": [[], 1],
}
"""Values that are not of their field's type or shape."""


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in ODD.items() for value in values],
    ids=lambda value: ascii(value)[:40],
)
def test_odd_field_is_none_and_named(field: str, value: object) -> None:
    """The other fields are as in the reply."""
    profile, odd_fields = read_profile({"id": ADA} | WHOLE | {field: value}, ADA)

    assert profile == without(PROFILE, field)
    assert odd_fields == (field,)


def test_all_fields_may_be_odd() -> None:
    """It is Meta's reply about that person all the same."""
    odd = {field: values[0] for field, values in ODD.items()}

    profile, odd_fields = read_profile({"id": ADA} | odd, ADA)

    assert (profile, odd_fields) == (EMPTY_PROFILE, FIELDS)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "NaN"])
def test_number_that_no_reader_can_hold_is_odd(number: str) -> None:
    """Python refuses an integer of over 4300 digits; the reply must not go with it."""
    body = b'{"id":"%s","name":"Ada","follower_count":%s}' % (
        ADA.encode(),
        number.encode(),
    )

    profile, odd_fields = read_reply(body, ADA, frozenset())

    assert profile == replace(EMPTY_PROFILE, name="Ada")
    assert odd_fields == ("follower_count",)


@pytest.mark.parametrize(
    "link", ["HTTPS://host/a.jpg", "http://h", "https://host/\xe9.jpg", PICTURE]
)
def test_any_http_link_is_a_picture(link: str) -> None:
    """It is not changed, because Meta has signed it."""
    assert read(profile_pic=link).profile_pic == link


# The person.


@pytest.mark.parametrize("id_", [None, "", ADA, int(ADA)])
def test_profile_of_the_person_asked_for_is_read(id_: object) -> None:
    """One live reply had no id. An integer is exact."""
    profile, odd_fields = read_profile({"id": id_, "name": "Ada"}, ADA)

    assert (profile.igsid, profile.name, odd_fields) == (ADA, "Ada", ())


@pytest.mark.parametrize(
    "id_",
    ["1254009999999999", ADA + " ", "\ud800", 1, float(ADA), True, False, 0, [], {}]
    + [[ADA], {"id": ADA}],
    ids=ascii,
)
def test_profile_of_another_person_is_a_failure(id_: object) -> None:
    """A float may have lost digits of the id."""
    with pytest.raises(GraphUnavailable):
        read_profile({"id": id_} | WHOLE, ADA)


@pytest.mark.parametrize(
    "reply",
    [{}, {"id": ADA}, {"success": True}, {"id": ADA, "bio": "unasked"}],
    ids=str,
)
def test_object_with_none_of_the_fields_is_no_profile(reply: dict[str, Any]) -> None:
    """It says nothing of the person that could be stored."""
    with pytest.raises(GraphUnavailable):
        read_profile(reply, ADA)


# Any value.

text = st.text(st.characters(exclude_categories=()), max_size=8)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | text
    | st.sampled_from([2**53, 10**4000, ADA, PICTURE])
    | text.map("https://".__add__),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
    ),
    max_leaves=6,
)
some_fields = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, anything))


def as_sent(reply: object) -> bytes:
    return json.dumps(reply).replace("/", "\\/").encode()


@given(some_fields)
@example({"name": "\ud800"})
@example({"profile_pic": "https://[", "name": {}})
def test_no_value_in_a_field_raises_or_costs_another(odd: dict[str, Any]) -> None:
    """Each other field keeps its value, and what is read can be stored and sent."""
    outcome, odd_fields = read_reply(
        as_sent({"id": ADA} | WHOLE | odd), Igsid(ADA), frozenset()
    )

    assert isinstance(outcome, Profile)
    assert without(outcome, *odd) == without(PROFILE, *odd)
    assert set(odd_fields) <= odd.keys()
    for field in odd_fields:
        assert getattr(outcome, field) is None
    json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False).encode()
    entry = Entry(outcome, 1.0, 2.0, 3.0)
    assert codec.decode(codec.encode(entry), ADA) == entry


@given(st.sampled_from(FIELDS), anything)
def test_value_is_kept_or_its_field_is_odd(field: str, value: object) -> None:
    """Nothing is dropped without being named."""
    profile, odd_fields = read_profile({"id": ADA, field: value}, ADA)

    is_kept = getattr(profile, field) is not None
    assert is_kept != (field in odd_fields) or (value in (None, "") and not odd_fields)
