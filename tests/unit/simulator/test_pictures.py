"""Picture URLs: the same for an hour, expired after some days."""

import re

import pytest

from proxy.simulator.people import PICTURE_LIFE
from proxy.simulator.pictures import Album, picture

NOW = 1_795_000_000.0
HOUR = 3600.0
BASE = "http://127.0.0.1:9100"
ADA = "1254001000000001"


def fetch(url: str, now: float = NOW) -> tuple[int, str, bytes]:
    """Return status, type and body of the picture at *url*."""
    path, _, query = url.removeprefix(BASE).partition("?")
    reply = picture(path, query, now)
    return reply.status, reply.headers["content-type"], reply.body


def expiry(url: str) -> int:
    found = re.search(r"&oe=([0-9A-F]{8})$", url)
    assert found is not None
    return int(found[1], 16)


def test_url_lives_for_four_and_a_half_days() -> None:
    """Its expiry is in it, in hex."""
    url = Album(BASE).url(ADA, NOW)

    assert expiry(url) == NOW + PICTURE_LIFE == NOW + 4.5 * 24 * HOUR


def test_url_stays_the_same_within_the_hour() -> None:
    """So the life that is left can be shorter than the full life."""
    album = Album(BASE)
    first = album.url(ADA, NOW)

    assert album.url(ADA, NOW + HOUR - 1) == first
    assert expiry(album.url(ADA, NOW + HOUR)) == NOW + HOUR + PICTURE_LIFE


def test_short_lived_url_stays_the_same_until_it_expires() -> None:
    """Then a new one has a full life, as for Gus."""
    album = Album(BASE)
    first = album.url(ADA, NOW, 90.0)

    assert expiry(first) == NOW + 90
    assert album.url(ADA, NOW + 89, 90.0) == first
    assert expiry(album.url(ADA, NOW + 90, 90.0)) == NOW + 90 + PICTURE_LIFE


def test_clear_makes_the_next_picture_the_first() -> None:
    """After a reset the short-lived one expires again."""
    album = Album(BASE)
    album.url(ADA, NOW, 90.0)

    album.clear()

    assert expiry(album.url(ADA, NOW + 10, 90.0)) == NOW + 100


def test_valid_url_shows_a_picture() -> None:
    """It is a drawing, though its path ends in .jpg."""
    status, kind, body = fetch(Album(BASE).url(ADA, NOW))

    assert (status, kind) == (200, "image/svg+xml")
    assert body.startswith(b"<svg") and b">A</text>" in body


def test_expired_url_answers_403() -> None:
    """403 in plain text, from the second of its expiry on."""
    url = Album(BASE).url(ADA, NOW)

    assert fetch(url, expiry(url) - 1)[0] == 200
    assert fetch(url, expiry(url)) == (403, "text/plain", b"URL signature expired")


@pytest.mark.parametrize(
    ("old", "new", "body"),
    [
        ("stp=", "stp=x", b"URL signature mismatch"),
        ("&oe=6", "&oe=7", b"URL signature mismatch"),
        ("&oh=00_Af", "&oh=00_Ag", b"URL signature mismatch"),
        ("1254001000000001", "1254001000000002", b"URL signature mismatch"),
        ("&oe=", "&oe=x", b"Bad URL timestamp"),
        ("&oe=", "&eo=", b"Bad URL timestamp"),
        ("&", "&amp;", b"Bad URL timestamp"),
    ],
)
def test_changed_url_answers_403(old: str, new: str, body: bytes) -> None:
    """Any change breaks the signature, and some hide the timestamp too."""
    url = Album(BASE).url(ADA, NOW)

    changed = url.replace(old, new)

    assert changed != url and fetch(changed) == (403, "text/plain", body)
