"""The moment at which a picture link stops working."""

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
def test_cdn_link_has_its_expiry_in_hex(oe: str, moment: str) -> None:
    """These are live links, which stopped working at that moment."""
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
def test_expiry_is_read_from_any_host_of_the_cdn(host: str) -> None:
    """The host is only an edge near the client."""
    read = expires_at(f"https://{host}/ada.jpg?oe=6A842163")

    assert read == datetime(2026, 8, 18, 9, 9, 55, tzinfo=UTC).timestamp()


def test_expiry_may_be_in_lower_case_hex() -> None:
    """No live link had it, but it means the same."""
    read = expires_at(f"{CDN}?oe=6a842163")

    assert read == 0x6A842163


def test_lookaside_link_has_its_expiry_in_decimal() -> None:
    """Messenger's avatars come from there."""
    read = expires_at(f"{LOOKASIDE}?psid=1107678927&width=1024&ext=1549209201&hash=Ae")

    assert read == datetime(2019, 2, 3, 15, 53, 21, tzinfo=UTC).timestamp()


def test_host_is_compared_without_case_and_port() -> None:
    """As URLs are."""
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
def test_link_without_its_host_s_parameter_has_no_expiry(url: str) -> None:
    """``ext`` belongs to lookaside, and ``oe`` to the CDN."""
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
def test_invalid_hex_is_not_an_expiry(value: str) -> None:
    """Python would read some of these as numbers, but Meta never sent them."""
    assert expires_at(f"{CDN}?oe={value}") is None


@pytest.mark.parametrize(
    "value",
    ["", "5C56E1F1", "15492092010", "-1", "1_5", "1.5", "1e9", "\u0661", "9" * 5000],
)
def test_invalid_decimal_is_not_an_expiry(value: str) -> None:
    """As for hex."""
    assert expires_at(f"{LOOKASIDE}?ext={value}") is None


def test_earlier_of_two_expiries_counts() -> None:
    """A picture that ends too early is fetched again; a dead one would be shown."""
    read = expires_at(f"{CDN}?oe=6A842163&x=1&oe=69EFEA01")

    assert read == 0x69EFEA01


def test_expiry_is_read_beside_invalid_ones() -> None:
    """The valid one bounds the picture."""
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
def test_invalid_link_has_no_expiry(url: str) -> None:
    """It comes from outside, and must not cost the profile."""
    assert expires_at(url) is None


text = st.text(st.characters(exclude_categories=()))
queries = st.lists(
    st.tuples(st.sampled_from(["oe", "ext", "amp;oe"]) | text, text).map("=".join)
).map("&".join)
links = st.builds("{}?{}".format, st.sampled_from([CDN, LOOKASIDE]), queries)


@given(text | text.map("https://".__add__) | links)
@example("http://[::1]:99999/?oe=6A842163")
def test_any_text_has_a_finite_expiry_or_none(url: str) -> None:
    """And raises no error."""
    read = expires_at(url)

    assert read is None or (math.isfinite(read) and 0 <= read < 1e10)
