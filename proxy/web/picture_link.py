"""Signed picture links, for browsers, which send no API key.

A link is relative to the address of its Page's routes, so that it works behind every
address of the service. Its signature covers the Page, the person and the moment at
which it ends; that moment is the end of a day, so that all links of a day are equal,
and caches and ETags hold.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from math import floor

from proxy.web.problems import Problem

DAY = 86400

EXPIRES, SIGNATURE = "expires", "signature"
"""The query parameters of a link."""

LINKS_USED_UP = "the picture links have used up their calls to Meta for this minute"
"""Why a link is refused whose miss the allowance of all links cannot pay for."""

_EXPIRES = re.compile(r"[0-9]{1,12}", re.ASCII)

LinkOf = Callable[[str], str]
"""Returns the picture link of a person, by their igsid, at the moment of a response."""


def day_ends_at(now: float) -> int:
    """Return the end of the day of *now*, in epoch seconds, UTC."""
    return (floor(now) // DAY + 1) * DAY


class PictureLinks:
    """Makes and checks picture links, with a secret that may change while serving."""

    def __init__(self, secret: Callable[[], str]) -> None:
        self._secret = secret
        self._noticed = secret()

    def secret_has_changed(self) -> bool:
        """Return whether the secret is another one than at the last call."""
        secret = self._secret()
        changed = secret != self._noticed
        self._noticed = secret
        return changed

    def link(self, page: str, now: float, igsid: str) -> str:
        """Return the link to a person's picture, valid until the end of the next day.

        That is 24 to 48 hours after *now*, which is epoch seconds.
        """
        expires = str(day_ends_at(now) + DAY)
        signature = self._sign(page, igsid, expires)
        return f"profiles/{igsid}/picture?{EXPIRES}={expires}&{SIGNATURE}={signature}"

    def is_signed(self, page: str, igsid: str, expires: str, signature: str) -> bool:
        """Return whether *signature* is that of the link with these parts."""
        # Compare bytes: text from outside may not be ASCII.
        expected = self._sign(page, igsid, expires).encode()
        return hmac.compare_digest(expected, signature.encode(errors="replace"))

    def check(
        self,
        page: str,
        igsid: str,
        *,
        expires: list[str],
        signature: list[str],
        now: float,
    ) -> None:
        """Check a request's parameters *expires* and *signature*.

        Raises:
            Problem: ``bad_signature``; one is missing or repeated, the link was
                changed, is another person's or signed with another secret, or it has
                expired.
        """
        if len(expires) != 1 or len(signature) != 1:
            wrong = f"It needs one parameter {EXPIRES} and one {SIGNATURE}."
        elif not self.is_signed(page, igsid, expires[0], signature[0]):
            wrong = (
                "It is not signed for this person, was changed, or is older than the"
                " secret that signs links now."
            )
        elif has_expired(expires[0], now):
            wrong = "It has expired: it is valid for 24 to 48 hours."
        else:
            return
        raise Problem(
            "bad_signature",
            f"This picture link is not valid. {wrong} Take the picture_link of the"
            " profile, unchanged.",
        )

    def _sign(self, page: str, igsid: str, expires: str) -> str:
        message = f"{page}/{igsid}/{expires}".encode(errors="replace")
        return hmac.digest(self._secret().encode(), message, "sha256").hex()


def has_expired(expires: str, now: float) -> bool:
    """Return whether a link that was signed with *expires* is over."""
    return _EXPIRES.fullmatch(expires) is None or now >= int(expires)
