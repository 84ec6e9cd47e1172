"""Initials as an SVG picture, for people without a profile picture."""

from __future__ import annotations

import unicodedata
import zlib
from xml.sax.saxutils import escape

import regex

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

NO_INITIALS, NO_TITLE = "?", "No picture"
"""The letter and the title for a person without a usable name."""

LONGEST_CLUSTER, LONGEST_TITLE = 12, 200
"""Code points. A grapheme cluster may have any number of marks."""

_CLUSTER = regex.compile(r"\X")
"""One grapheme cluster, which a reader sees as one letter or one emoji.

Source: https://www.unicode.org/reports/tr29/#Grapheme_Cluster_Boundary_Rules
"""

_ZWJ = "\u200d"
"""ZERO WIDTH JOINER, which joins emoji."""

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96"'
    ' height="96" role="img" aria-labelledby="name"><title id="name">{title}</title>'
    '<rect width="96" height="96" fill="{colour}"/><text x="48" y="48" fill="#ffffff"'
    ' font-family="sans-serif" font-size="40" text-anchor="middle"'
    ' dominant-baseline="central" aria-hidden="true">{letters}</text></svg>'
)


def draw(igsid: str, *names: str | None) -> bytes:
    """Draw an SVG with the initials of the first of *names* that has any.

    The colour depends on *igsid* alone, so that it stays the same.
    """
    title, letters = NO_TITLE, NO_INITIALS
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
    """Return the first letters of the first and the last word, or the first emoji.

    Empty if there is neither a letter, a digit nor an emoji.
    """
    firsts = [_first_cluster(word) for word in name.split()]
    letters = [first for first in firsts if _category(first)[0] in "LN"]
    if letters:
        return "".join(map(_upper, letters[:1] + letters[1:][-1:]))
    return next((first for first in firsts if _category(first) == "So"), "")


def _first_cluster(word: str) -> str:
    cluster = _CLUSTER.match(word)
    assert cluster is not None  # A word is not empty.
    return str(cluster[0])[:LONGEST_CLUSTER]


def _category(cluster: str) -> str:
    """Return the category of the base character; emoji and flags are So, other symbol.

    The marks after it have categories of their own.
    """
    return unicodedata.category(cluster[0])


def _upper(cluster: str) -> str:
    """Return the cluster in capitals, unless that makes two letters of one."""
    upper = cluster.upper()
    return upper if len(upper) == len(cluster) else cluster


def _printable(name: str) -> str:
    """Remove what XML forbids, what is invisible and what reverses text direction."""
    return " ".join(
        "".join(
            " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
            for c in unicodedata.normalize("NFC", name)
            if c == _ZWJ
            or "\U000e0020" <= c <= "\U000e007f"  # The tags of a flag.
            or unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")
        ).split()
    )
