"""What is asked: ids, fields, directives, read from a request or refused."""

from __future__ import annotations

import re
from random import randbytes
from typing import TypeGuard
from urllib.request import parse_http_list

from proxy.domain.answer import NO_DIRECTIVES, Directives
from proxy.domain.profile import FIELDS, IGSID, Igsid
from proxy.web.problems import Problem

MOST_IDS = 100
"""People on a page of them."""

LONGEST_ECHO = 40
"""Characters of what a caller has sent that a problem repeats."""

NO_IGSID = "Invalid igsid: it must be 5 to 25 ASCII digits."

SNAPSHOT = "profile-proxy.snapshot"
"""WSGI environ key: the store snapshot that the fast path has already read, so that
the view need not read it again."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def read_igsid(text: str) -> Igsid:
    """Take *text* for an Instagram-scoped id, or raise ``invalid_igsid``.

    Raises:
        Problem: it is not 5 to 25 ASCII digits.
    """
    if not is_igsid(text):
        raise Problem("invalid_igsid", NO_IGSID)
    return Igsid(text)


def is_igsid(text: str) -> TypeGuard[Igsid]:
    return IGSID.fullmatch(text) is not None


def read_ids(asked: list[str]) -> list[str]:
    """Whom the ``ids`` parameters *asked* for, each once, igsids or not.

    Raises:
        Problem: ``invalid_ids``; there are none, or too many.
    """
    ids = list(dict.fromkeys(asked[0].split(","))) if asked else [""]
    if ids == [""] or len(asked) > 1 or len(ids) > MOST_IDS:
        raise Problem(
            "invalid_ids",
            f"Send one parameter ids: 1 to {MOST_IDS} igsids, separated by commas.",
        )
    return ids


def read_fields(asked: list[str]) -> tuple[str, ...]:
    """The fields that the ``fields`` parameters *asked* for, in our order.

    All of them when it is left out. ``id`` may be asked for, as of Meta, and
    is there in any case.

    Raises:
        Problem: ``invalid_fields``; one is unknown or there twice.
    """
    if not asked:
        return FIELDS
    names = asked[0].split(",")
    unknown = [name for name in names if name not in FIELDS and name != "id"]
    wrong = None
    if len(asked) > 1:
        wrong = "There is more than one parameter fields."
    elif unknown:
        wrong = f"There is no field {unknown[0][:LONGEST_ECHO]!r}."
    elif len(set(names)) < len(names):
        wrong = "A field is repeated."
    if wrong:
        valid = f"Send one or more of id,{','.join(FIELDS)}, each once."
        raise Problem("invalid_fields", f"{wrong} {valid}")
    return tuple(field for field in FIELDS if field in names)


def read_directives(header: str | None) -> Directives:
    """What a request's ``Cache-Control`` asks of us; other directives mean nothing.

    Of an age that is no number we cannot tell what the caller would have, so
    nothing that is stored will do; of several, the least counts. ``Pragma`` is
    not read at all: it is deprecated, and would cost a call to Meta.

    Source: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
    """
    if header is None:
        return NO_DIRECTIVES
    said: dict[str, list[str]] = {}
    for part in parse_http_list(header):
        name, _, value = part.partition("=")
        said.setdefault(name.strip().lower(), []).append(value.strip().strip('"'))
    ages = [
        float(age) if age.isascii() and age.isdigit() else 0.0
        for age in said.get("max-age", [])
    ]
    return Directives(
        no_cache="no-cache" in said or 0.0 in ages,
        max_age=min(ages, default=None),
        only_if_cached="only-if-cached" in said,
    )


def request_id(header: str | None) -> str:
    """The caller's name for the request, if we can repeat it safely; else a new one."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return randbytes(16).hex()
