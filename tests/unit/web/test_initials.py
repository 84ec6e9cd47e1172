"""Initials: whole letters of any script, in an SVG that is safe and readable."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.web import initials

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("Ada Lovelace", "AL"),
        ("Augusta Ada King, Countess of Lovelace", "AL"),
        ("ada", "A"),
        ("  Ada\tLovelace\n", "AL"),
        ("(Ada) Lovelace", "L"),
        ("Zoë 🌸", "Z"),
        ("🌸 Zoë", "Z"),
        ("🌸", "🌸"),
        ("🌸 🦄", "🌸"),
        ("👨‍👩‍👧‍👦 family", "F"),
        ("👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"),
        ("👩🏽‍🚀", "👩🏽‍🚀"),
        ("❤️🧡", "❤️"),
        ("🇮🇹🇫🇷", "🇮🇹"),
        ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        ("1️⃣ first", "1️⃣F"),
        ("e\u0301lan vital", "\u00c9V"),
        ("g\u0303", "G\u0303"),
        ("ßeta", "ß"),
        ("ŉame", "ŉ"),
        ("מיכל כהן", "מכ"),
        ("أحمد علي", "أع"),
        ("\u202eevil\u202c name", "EN"),
        ("王小明", "王"),
        ("นี นา", "นี" + "น"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "한"),
        ("क्षितिज शर्मा", "क्षि" + "श"),
        ("กำพล", "กำ"),
        ("<script>alert(1)</script>", ""),
        ("$$$ ^^", ""),
        ("--", ""),
        ("<b> Ada", "A"),
        ("&amp; x", "X"),
        ("...", ""),
        ("\u200d", ""),
        ("\x00\x07\ud800\ufffe", ""),
    ],
)
def test_initials_are_the_first_letters_of_a_name(name, letters) -> None:
    """Whole grapheme clusters (UAX #29); emoji only if there is no letter or digit."""
    text, title = drawn(initials.draw("12345", name))

    assert text == (letters or "?")
    assert (title == "No picture") is (not letters)


def drawn(svg: bytes) -> tuple[str, str]:
    """Return the letters, and the title that a screen reader reads aloud."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert {child.tag for child in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "rect", "text")
    }
    assert not any("{" in name for child in root.iter() for name in child.attrib)
    return root.findtext(f"{SVG}text"), root.findtext(f"{SVG}title")


@given(st.text(st.characters(), max_size=60))
def test_svg_of_any_name_is_valid_and_harmless(name) -> None:
    """It has the same four elements for every name, and is well-formed XML."""
    text, title = drawn(initials.draw("12345", name))

    assert text
    assert title
    assert len(text) <= 2 * initials.LONGEST_CLUSTER


def test_title_is_the_name_as_escaped_text() -> None:
    """Screen readers read it aloud; markup in a name stays text."""
    svg = initials.draw("12345", 'Ada "</title><script>alert(1)</script>" & Co')

    assert drawn(svg)[1] == 'Ada "</title><script>alert(1)</script>" & Co'
    assert b"<script" not in svg
    assert b'role="img"' in svg
    assert b'aria-labelledby="name"' in svg


def test_letters_and_title_are_bounded() -> None:
    """A letter may have any number of marks, and a name any length."""
    text, _ = drawn(initials.draw("12345", "Z" + "\u0335" * 5000))
    _, title = drawn(initials.draw("12345", "Z" * 5000))

    assert len(text) == initials.LONGEST_CLUSTER
    assert len(title) == initials.LONGEST_TITLE


def test_username_is_used_without_a_usable_name() -> None:
    assert drawn(initials.draw("12345", None, "ada.lovelace"))[0] == "A"
    assert drawn(initials.draw("12345", "...", "ben"))[0] == "B"
    assert drawn(initials.draw("12345", None, None)) == ("?", "No picture")


def test_colour_depends_on_the_igsid_alone() -> None:
    """The same person always has the same one, and all of them are used."""
    assert initials.draw("12345", "Ada") == initials.draw("12345", "Ada")
    assert len({initials.draw(f"1234{n}", "Ada") for n in range(100)}) == len(
        initials.COLOURS
    )


@pytest.mark.parametrize("colour", initials.COLOURS)
def test_colour_has_enough_contrast_with_white(colour) -> None:
    """4.5 to 1, as https://www.w3.org/TR/WCAG22/#contrast-minimum asks for."""
    shares = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in shares
    )

    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5
