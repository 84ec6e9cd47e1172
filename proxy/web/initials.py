"""A picture for who has none: the initials of a name, whatever the name is made of."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterator
from xml.sax.saxutils import escape

COLOURS = (
    "#7a2e39",
    "#8a3a12",
    "#6b4a00",
    "#3d5a12",
    "#0f5e4c",
    "#14557b",
    "#3f3f95",
    "#6f3080",
)
"""Dark enough for white letters to be read on them (WCAG 2.2, 1.4.3: 4.5 to 1)."""

NOBODY, NOBODY_NAMED = "?", "No picture"

LONGEST_CLUSTER, LONGEST_TITLE = 12, 200
"""Code points. A letter can have marks without end."""

_ZWJ = "\u200d"

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96"'
    ' height="96" role="img" aria-labelledby="name"><title id="name">{title}</title>'
    '<rect width="96" height="96" fill="{colour}"/><text x="48" y="48" fill="#ffffff"'
    ' font-family="sans-serif" font-size="40" text-anchor="middle"'
    ' dominant-baseline="central" aria-hidden="true">{letters}</text></svg>'
)


def draw(igsid: str, *names: str | None) -> bytes:
    """An SVG with the initials of the first of *names* that has any.

    Its colour is the person's own, told by *igsid*.
    """
    title, letters = NOBODY_NAMED, NOBODY
    for name in filter(None, names):
        shown = _printable(name)
        if found := initials_of(shown):
            title, letters = shown[:LONGEST_TITLE], found
            break
    colour = COLOURS[zlib.crc32(igsid.encode()) % len(COLOURS)]
    return _SVG.format(
        title=escape(title), colour=colour, letters=escape(letters)
    ).encode()


def initials_of(name: str) -> str:
    """The first letters of the first and the last word; of emoji, the first.

    Empty where there is neither a letter, a digit nor an emoji.
    """
    firsts = [next(_clusters(word)) for word in name.split()]
    letters = [first for first in firsts if _category(first)[0] in "LN"]
    if letters:
        return "".join(map(_upper, letters[:1] + letters[1:][-1:]))
    return next((first for first in firsts if _category(first) == "So"), "")


def _clusters(text: str) -> Iterator[str]:
    """What a reader takes for one letter each: with its marks, or joined emoji.

    Source: https://www.unicode.org/reports/tr29/#Grapheme_Cluster_Boundary_Rules
    """
    cluster = ""
    for character in text:
        if cluster and _joins(cluster, character):
            cluster += character
        else:
            if cluster:
                yield cluster[:LONGEST_CLUSTER]
            cluster = character
    yield cluster[:LONGEST_CLUSTER]


def _joins(cluster: str, character: str) -> bool:
    last = cluster[-1]
    return (
        unicodedata.category(character)[0] == "M"
        or character == _ZWJ
        or (last == _ZWJ and unicodedata.category(character) == "So")
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin
        or "\U000e0020" <= character <= "\U000e007f"  # the tags of a flag
        or (_is_regional(cluster) and _is_regional(character) and len(cluster) == 1)
        or _joins_hangul(last, character)
    )


def _is_regional(text: str) -> bool:
    """Two of these are one flag."""
    return "\U0001f1e6" <= text[0] <= "\U0001f1ff"


def _joins_hangul(last: str, character: str) -> bool:
    """Parts of a Korean syllable that are written apart."""
    if "\u1100" <= last <= "\u115f":
        return "\u1100" <= character <= "\u11a7" or "\uac00" <= character <= "\ud7a3"
    is_vowel = "\u1160" <= last <= "\u11a7" or "\uac00" <= last <= "\ud7a3"
    if is_vowel and "\u1160" <= character <= "\u11a7":
        return True
    return (is_vowel or "\u11a8" <= last <= "\u11ff") and (
        "\u11a8" <= character <= "\u11ff"
    )


def _category(cluster: str) -> str:
    """Of what it begins with; So, "other symbol", is that of emoji and flags."""
    return unicodedata.category(cluster[0])


def _upper(cluster: str) -> str:
    """In capitals, unless that makes two letters of one."""
    upper = cluster.upper()
    return upper if len(upper) == len(cluster) else cluster


def _printable(name: str) -> str:
    """Without what XML forbids, nobody sees, or turns about what stands around it."""
    return " ".join(
        "".join(
            " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
            for c in unicodedata.normalize("NFC", name)
            if c == _ZWJ
            or "\U000e0020" <= c <= "\U000e007f"
            or unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")
        ).split()
    )
