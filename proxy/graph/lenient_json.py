"""Read JSON that may be anything: Meta's replies, headers and webhooks."""

from __future__ import annotations

import json
import math
from typing import Any

_MOST_DIGITS = 40
"""Of an integer; an id has 25 at most. Python refuses those of over 4300 digits."""


def read_json(text: str | bytes) -> Any:
    """Parse JSON; None if it is invalid, or nested too deeply.

    Integers are exact. One of over 40 digits becomes infinity, because it must not
    cost the rest of the text. A lone surrogate stays: half an emoji in one text must
    not cost the others (msgspec would refuse the whole).
    """
    try:
        return json.loads(text, parse_int=_read_integer)
    except (ValueError, RecursionError):
        return None


def _read_integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def read_id(value: object) -> str | None:
    """Return an id as text. An integer is exact; a float may have lost digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
