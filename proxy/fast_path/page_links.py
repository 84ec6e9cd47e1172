"""The picture links of one Page, as the fast path makes and opens them."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

from proxy.web import picture
from proxy.web.picture_link import LinkOf, PictureLinks, day_ends_at, has_expired

WITH_INITIALS = f"fallback={picture.INITIALS}"
"""The one query of a picture, beside that of a link, that the fast path answers."""

QUERY = re.compile(
    r"expires=(?P<expires>[0-9]{1,12})&signature=(?P<signature>[0-9a-f]{64})"
    rf"(?:&(?P<fallback>{WITH_INITIALS}))?",
    re.ASCII,
)
"""The query of a picture link, as it is made, with or without a fallback."""


class TodaysLinks(NamedTuple):
    """The picture links of one Page's people, until *day_ends_at*."""

    link_of: LinkOf
    day_ends_at: float


class PageLinks:
    """Makes and opens the picture links of one Page's people."""

    def __init__(self, links: PictureLinks, page: str) -> None:
        self._links = links
        self._page = page

    def of_today(self, now: float) -> TodaysLinks:
        """Return the links as of *now*, in epoch seconds."""
        link_of = partial(self._links.link, self._page, now)
        return TodaysLinks(link_of, day_ends_at(now))

    def open(self, igsid: str, link: re.Match[str], now: float) -> str | None:
        """Return the rest of the query of a valid *link* to the picture of *igsid*.

        None: it is not valid.
        """
        expires, signature = link["expires"], link["signature"]
        is_signed = self._links.is_signed(self._page, igsid, expires, signature)
        if not is_signed or has_expired(expires, now):
            return None
        return link["fallback"] or ""
