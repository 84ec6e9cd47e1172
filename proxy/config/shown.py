"""What a mistake may show of a value: enough to find it, and nothing of a secret."""

from __future__ import annotations

import re

MOST_SHOWN = 60
"""Characters of a value."""

_MAY_BE_SECRET = re.compile(r"[A-Za-z0-9_+=-]{24,}|(EAA|IGAA|pp_)[A-Za-z0-9]{6}")
"""A token or key that stands in the wrong variable."""

_PATH = re.compile(r"[/~]|\.\.?/")
"""How a path begins. A long one has parts that look like secrets."""

_PLAIN_URL = re.compile(r"[a-z+]+://[\w.-]*(:[0-9]*)?(,[\w.-]+(:[0-9]*)?)*(/[\w./-]*)?")
"""A URL without any place for a password. IPv6 addresses are left out for brevity."""


def shown(text: str, *, may_have_password: bool = False) -> str:
    """How a mistake ends that is about the value *text*: ``, not 'soon'``."""
    if may_be_secret(text, may_have_password=may_have_password):
        return "; its value is not shown, because it may be a secret"
    cut = "..." if len(text) > MOST_SHOWN else ""
    return f", not {text[:MOST_SHOWN]!r}{cut}"


def may_be_secret(text: str, *, may_have_password: bool = False) -> bool:
    """Whether the value *text*, which is wrong, may be or hold a secret."""
    is_url = may_have_password or "://" in text
    is_odd_url = is_url and not _PLAIN_URL.fullmatch(text)
    return is_odd_url or bool(_MAY_BE_SECRET.search(text))


def shown_path(path: str) -> str:
    """What follows the name of a setting that names a file: ``=/run/secrets/token``."""
    if may_be_no_path(path):
        return " (not shown, because it may be the secret and not a path)"
    return f"={path}"


def may_be_no_path(path: str) -> bool:
    """Whether *path* may be the secret itself, in the variable of the file's name."""
    if "://" in path and not _PLAIN_URL.fullmatch(path):
        return True
    return bool(_MAY_BE_SECRET.search(path)) and not _PATH.match(path)
