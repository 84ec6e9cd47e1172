"""The moment at which a picture link stops working."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

_LOOKASIDE = "platform-lookaside.fbsbx.com"
_HEX_SECONDS = re.compile(r"[0-9A-Fa-f]{1,8}")
_DECIMAL_SECONDS = re.compile(r"[0-9]{1,10}")


def expires_at(url: str) -> float | None:
    """Return when *url* stops working, in epoch seconds; None if it does not say.

    Links to the CDN carry ``oe``, seconds in hex, and those to
    platform-lookaside ``ext``, seconds in decimal. After that moment Meta's
    servers answer 403 ``URL signature expired``. Neither is documented; both
    were read from live links. If one is given twice, the earlier counts.

    Source: https://stackoverflow.com/a/77212118 (oe), bottender's
    ``_profilePicExpired`` (ext)
    """
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, max_num_fields=100)
    except ValueError:
        return None
    if parts.hostname == _LOOKASIDE:
        return _earliest(query.get("ext", []), _DECIMAL_SECONDS, base=10)
    return _earliest(query.get("oe", []), _HEX_SECONDS, base=16)


def _earliest(
    values: list[str], pattern: re.Pattern[str], *, base: int
) -> float | None:
    moments = [float(int(v, base)) for v in values if pattern.fullmatch(v)]
    return min(moments, default=None)
