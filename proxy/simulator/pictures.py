"""Pictures: signed URLs that expire, and the answers of such a URL."""

import base64
import hashlib
import hmac
import re
import threading
from collections import OrderedDict
from html import escape
from urllib.parse import parse_qs, urlsplit

from proxy.simulator import people
from proxy.simulator.people import PICTURE_LIFE
from proxy.simulator.replies import Reply, plain_text

URL_REUSED_FOR = 3600.0
MAX_REMEMBERED = 50_000
_KEY = b"not a secret: it only shows that a URL was changed"
_PATH = re.compile(r"/pictures/([0-9]{1,25})\.jpg")


class Album:
    """The current picture URL of each person; thread-safe.

    Meta returns the same URL for an hour, so the life that is left can be shorter
    than a picture's full life. Only the latest 50 000 people are kept; the others
    get a new URL sooner.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._lock = threading.Lock()
        self._given: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def url(self, igsid: str, now: float, first_life: float = PICTURE_LIFE) -> str:
        """Return the picture URL of *igsid*; the first one lives for *first_life*."""
        with self._lock:
            expiry = self._expiry(igsid, now, first_life)
            self._given.move_to_end(igsid)
            if len(self._given) > MAX_REMEMBERED:
                self._given.popitem(last=False)
        return signed_url(self._base_url, igsid, expiry)

    def _expiry(self, igsid: str, now: float, first_life: float) -> int:
        given_at, expiry = self._given.get(igsid, (None, 0))
        if given_at is not None and now < min(expiry, given_at + URL_REUSED_FOR):
            return expiry
        life = first_life if given_at is None else PICTURE_LIFE
        expiry = int(now + life)
        self._given[igsid] = (now, expiry)
        return expiry

    def clear(self) -> None:
        """Start over: the next picture of each person is their first."""
        with self._lock:
            self._given.clear()


def signed_url(base_url: str, igsid: str, expiry: int) -> str:
    """Return a URL like those of Instagram's CDN, with *expiry* as hex in ``oe``."""
    path = f"/pictures/{igsid}.jpg"
    host = urlsplit(base_url).hostname
    first = f"stp=dst-jpg_s206x206_tt6&_nc_cat=104&ccb=7-5&_nc_sid=bf7eb4&_nc_ht={host}"
    last = f"oe={expiry:X}"
    return f"{base_url}{path}?{first}&oh={_signature(path, first, last)}&{last}"


def _signature(path: str, *query: str) -> str:
    signed = f"{path}?{'&'.join(query)}".encode()
    digest = hmac.digest(_KEY, signed, hashlib.sha256)[:24]
    return "00_Af" + base64.urlsafe_b64encode(digest).decode()


def picture(path: str, query: str, now: float) -> Reply:
    """Return the answer of a picture URL: the picture, or why it is not shown.

    The query is read as it was sent, because any change to it breaks the signature:
    with ``&amp;`` left in, it has no ``oe``.
    """
    parts = query.split("&")
    signed = [part for part in parts if not part.startswith("oh=")]
    expiry = parse_qs(query).get("oe", [""])[0]
    if not re.fullmatch(r"[0-9A-Fa-f]{1,12}", expiry):
        return plain_text(403, "Bad URL timestamp")
    if f"oh={_signature(path, *signed)}" not in parts:
        return plain_text(403, "URL signature mismatch")
    if now >= int(expiry, 16):
        return plain_text(403, "URL signature expired")
    found = _PATH.fullmatch(path)
    if found is None:
        return plain_text(404, "Not Found")
    headers = {
        "content-type": "image/svg+xml",
        "cache-control": "max-age=1209600, no-transform",
        "access-control-allow-origin": "*",
    }
    return Reply(200, headers, _drawing(found[1]))


def _drawing(igsid: str) -> bytes:
    # A drawing, because a photograph would need an encoder. The name ends in .jpg
    # nevertheless, so the name proves nothing.
    hue = int.from_bytes(hashlib.sha256(igsid.encode()).digest()[:2]) % 360
    initial = escape(people.generate(igsid).first_name[:1])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        f'<rect width="100" height="100" fill="hsl({hue},50%,45%)"/>'
        '<text x="50" y="68" font-size="52" font-family="sans-serif" fill="#fff" '
        f'text-anchor="middle">{initial}</text></svg>'
    ).encode()
