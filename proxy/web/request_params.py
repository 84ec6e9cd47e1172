"""Reads and validates request parameters: ids, fields, directives, request id."""

from __future__ import annotations

import re
from random import randbytes
from typing import TypeGuard
from urllib.request import parse_http_list

from werkzeug.datastructures import MultiDict

from proxy.domain.answer import NO_DIRECTIVES, Directives
from proxy.domain.failures import Cause
from proxy.domain.profile import FIELDS, IGSID, Igsid
from proxy.web.problems import Problem

MOST_IDS = 100
"""People in a batch, at most."""

LONGEST_ECHO = 40
"""Characters of a caller's own text that a problem repeats, at most."""

MOST_ECHOES = 5
"""Such texts in one problem, at most."""

EXAMPLES = {"ids": ("<igsid>", "<igsid>"), "fields": ("name", "username")}
"""Two items of each list parameter."""

INVALID_IGSID = "Invalid igsid: it must be 5 to 25 ASCII digits."

SNAPSHOT = "profile-proxy.snapshot"
"""WSGI environ key: the store snapshot that the fast path has already read, so that
the view need not read it again."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def read_cause(text: str) -> Cause:
    """Read a cause that closes the gate.

    Raises:
        Problem: there is no such cause; it lists those that there are.
    """
    try:
        return Cause(text)
    except ValueError:
        causes = ", ".join(Cause)
        raise Problem(
            "unknown_cause", f"The gate has no such cause. The causes: {causes}."
        ) from None


def read_igsid(text: str) -> Igsid:
    """Read an Instagram-scoped id.

    Raises:
        Problem: ``invalid_igsid``; it is not 5 to 25 ASCII digits.
    """
    if not is_igsid(text):
        raise Problem("invalid_igsid", INVALID_IGSID)
    return Igsid(text)


def is_igsid(text: str) -> TypeGuard[Igsid]:
    return IGSID.fullmatch(text) is not None


def read_list(args: MultiDict[str, str], name: str) -> list[str]:
    """Read the list parameter *name*, ``ids`` or ``fields``, as often as it was sent.

    Each time with items by comma or not. Blanks around an item and empty items are
    ignored; a repeated item counts once.

    Raises:
        Problem: ``invalid_ids`` or ``invalid_fields``; it was sent as ``ids[]`` or
            ``ids[0]``, as axios and PHP do. To ignore it would change the answer.
    """
    for sent in args:
        if sent.startswith(f"{name}["):
            one, other = EXAMPLES[name]
            raise Problem(
                f"invalid_{name}",
                f"The spelling {sent[:LONGEST_ECHO]!r} is not read: write"
                f" {name}={one}&{name}={other} or {name}={one},{other}.",
            )
    items = (item.strip() for text in args.getlist(name) for item in text.split(","))
    return list(dict.fromkeys(filter(None, items)))


def read_ids(args: MultiDict[str, str]) -> list[str]:
    """Read the ``ids`` parameters: each id once, even if it is not an igsid.

    Raises:
        Problem: ``invalid_ids``; there are none, or too many, or see `read_list`.
    """
    ids = read_list(args, "ids")
    if not 0 < len(ids) <= MOST_IDS:
        sent = f"There are {len(ids)} different ids." if ids else "There is no id."
        raise Problem(
            "invalid_ids",
            f"{sent} Send 1 to {MOST_IDS} igsids: ids=<igsid>,<igsid> or"
            " ids=<igsid>&ids=<igsid>.",
        )
    return ids


def read_fields(args: MultiDict[str, str]) -> tuple[str, ...]:
    """Read the ``fields`` parameters, and return the fields in the order of FIELDS.

    All of them if none is named. ``id`` is allowed, as at Meta, but is always
    included anyway.

    Raises:
        Problem: ``invalid_fields``; a field is unknown, or see `read_list`.
    """
    names = read_list(args, "fields")
    if not names:
        return FIELDS
    unknown = [name for name in names if name not in FIELDS and name != "id"]
    if unknown:
        shown = ", ".join(repr(name[:LONGEST_ECHO]) for name in unknown[:MOST_ECHOES])
        more = len(unknown) - MOST_ECHOES
        shown += f" and {more} more" if more > 0 else ""
        raise Problem(
            "invalid_fields",
            f"There is no field {shown}. The fields are id,{','.join(FIELDS)}.",
        )
    return tuple(field for field in FIELDS if field in names)


def read_directives(header: str | None) -> Directives:
    """Read the ``Cache-Control`` of a request; ignore directives that do not apply.

    A max-age that is not a number may mean anything, so it counts as 0: no stored
    entry is new enough. Of several, the least counts. ``Pragma`` is not read: it is
    deprecated, and would cost a call to Meta.

    Source: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
    """
    if header is None:
        return NO_DIRECTIVES
    directives: dict[str, list[str]] = {}
    for part in parse_http_list(header):
        name, _, value = part.partition("=")
        directives.setdefault(name.strip().lower(), []).append(value.strip().strip('"'))
    ages = [
        float(age) if age.isascii() and age.isdigit() else 0.0
        for age in directives.get("max-age", [])
    ]
    return Directives(
        no_cache="no-cache" in directives or 0.0 in ages,
        max_age=min(ages, default=None),
        only_if_cached="only-if-cached" in directives,
    )


def request_id(header: str | None) -> str:
    """Return the caller's request id if it is safe to repeat, otherwise a new one."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return randbytes(16).hex()
