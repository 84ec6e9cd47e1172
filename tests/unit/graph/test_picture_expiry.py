"""When a picture link dies."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.graph.picture_expiry import expires_at

CDN = "https://scontent-fra3-1.cdninstagram.com/v/t51.2885-19/ada_n.jpg"
LOOKASIDE = "https://platform-lookaside.fbsbx.com/platform/profilepic/"


@pytest.mark.parametrize(
    ("oe", "moment"),
    [
        ("69EFEA01", "2026-04-27 22:58:09"),
        ("6A842163", "2026-08-18 09:09:55"),
        ("6A2F427E", "2026-06-15 00:08:30"),
        ("69AA3F6F", "2026-03-06 02:43:59"),
        ("650CEAF2", "2023-09-22 01:16:34"),
        ("58AC353A", "2017-02-21 12:40:26"),
    ],
)
def test_a_link_of_the_cdn_tells_its_end_in_hex(oe: str, moment: str) -> None:
    """All of these were seen live; they died when they said."""
    url = f"{CDN}?stp=dst-jpg_s150x150&_nc_cat=1&oh=00_AfExample&oe={oe}&_nc_sid=8b35"

    read = expires_at(url)

    assert read == datetime.fromisoformat(f"{moment}+00:00").timestamp()


@pytest.mark.parametrize(
    "host",
    [
        "scontent.cdninstagram.com",
        "scontent-fra5-2.cdninstagram.com",
        "scontent-fra3-1.xx.fbcdn.net",
        "instagram.fbud4-1.fna.fbcdn.net",
    ],
)
def test_every_host_of_the_cdn_tells_its_end_alike(host: str) -> None:
    """The host is an edge chosen for whoever asks, so it is no sign of anything."""
    read = expires_at(f"https://{host}/ada.jpg?oe=6A842163")

    assert read == datetime(2026, 8, 18, 9, 9, 55, tzinfo=UTC).timestamp()


def test_hex_in_lower_case_is_read_too() -> None:
    """Nothing speaks against it."""
    read = expires_at(f"{CDN}?oe=6a842163")

    assert read == 0x6A842163


def test_a_link_of_lookaside_tells_its_end_in_decimal() -> None:
    """Messenger's avatars come from there."""
    read = expires_at(f"{LOOKASIDE}?psid=1107678927&width=1024&ext=1549209201&hash=Ae")

    assert read == datetime(2019, 2, 3, 15, 53, 21, tzinfo=UTC).timestamp()


def test_the_case_of_a_host_does_not_matter() -> None:
    """Nor does its port."""
    url = "https://Platform-Lookaside.FBSBX.com:443/platform/profilepic/?ext=1549209201"

    read = expires_at(url)

    assert read == 1549209201


@pytest.mark.parametrize(
    "url",
    [
        f"{LOOKASIDE}?psid=4100000000901&width=1024&hash=AbCdEf",
        f"{LOOKASIDE}?oe=6A842163",
        f"{CDN}?ext=1549209201",
        "https://lookaside.fbsbx.com/ig_messaging_cdn/?asset_id=1&ext=1549209201",
        "https://platform-lookaside.fbsbx.com.example.org/?ext=1549209201",
        CDN,
        f"{CDN}?oh=00_AfExample",
        f"{CDN}?OE=6A842163",
        f"{CDN}#oe=6A842163",
        "https://fbcdn-profile-...",
    ],
)
def test_a_link_that_does_not_tell_is_not_guessed_at(url: str) -> None:
    """``ext`` is lookaside's and ``oe`` the CDN's."""
    assert expires_at(url) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0x6A842163",
        "6A842163h",
        "6A_842163",
        "-6A842163",
        "+6A842163",
        "%206A842163",
        "6A842163%0A",
        "6A8421630",
        "F" * 4000,
        "xyz",
        "\uff16A842163",
        "6A84%ff63",
    ],
)
def test_an_end_that_is_no_hex_moment_is_not_told(value: str) -> None:
    """Python would read some of these as numbers; Meta never wrote them."""
    assert expires_at(f"{CDN}?oe={value}") is None


@pytest.mark.parametrize(
    "value",
    ["", "5C56E1F1", "15492092010", "-1", "1_5", "1.5", "1e9", "\u0661", "9" * 5000],
)
def test_an_end_that_is_no_decimal_moment_is_not_told(value: str) -> None:
    """As for hex."""
    assert expires_at(f"{LOOKASIDE}?ext={value}") is None


def test_the_earlier_end_counts_where_two_are_given() -> None:
    """A picture given up too early is fetched again; a dead one is shown."""
    read = expires_at(f"{CDN}?oe=6A842163&x=1&oe=69EFEA01")

    assert read == 0x69EFEA01


def test_an_end_is_read_beside_one_that_makes_no_sense() -> None:
    """What can be read bounds the picture."""
    read = expires_at(f"{CDN}?oe=never&oe=69EFEA01&oe=")

    assert read == 0x69EFEA01


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://[",
        "https://[::1",
        "https://[not-an-address]/?oe=6A842163x",
        "https://a\u2100b/?oe=6A842163",
        f"{CDN}?" + "&".join(f"a{i}=1" for i in range(101)) + "&oe=6A842163",
        f"{CDN}?oe=\ud800",
        "?",
        "\x00",
    ],
)
def test_a_link_that_is_none_tells_nothing(url: str) -> None:
    """It comes from outside, and a profile must not be lost over it."""
    assert expires_at(url) is None


text = st.text(st.characters(exclude_categories=()))
queries = st.lists(
    st.tuples(st.sampled_from(["oe", "ext", "amp;oe"]) | text, text).map("=".join)
).map("&".join)
links = st.builds("{}?{}".format, st.sampled_from([CDN, LOOKASIDE]), queries)


@given(text | text.map("https://".__add__) | links)
@example("http://[::1]:99999/?oe=6A842163")
def test_any_text_is_a_moment_or_tells_nothing(url: str) -> None:
    """A moment that a calendar can show, and never a bug of ours."""
    read = expires_at(url)

    assert read is None or (math.isfinite(read) and 0 <= read < 1e10)
