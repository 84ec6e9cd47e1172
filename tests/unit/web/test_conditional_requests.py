"""Conditional requests: which If-None-Match means that nothing was modified."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from proxy.web.conditional_requests import is_not_modified


def a_request(**headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(EnvironBuilder(headers=named).get_environ())


@pytest.mark.parametrize("header", ['"tag"', 'W/"tag"', '"other", "tag"', "*"])
def test_matching_etag_is_not_modified(header: str) -> None:
    """By weak comparison, as RFC 9110 §13.1.2 asks for."""
    assert is_not_modified(a_request(If_None_Match=header), "tag")


@pytest.mark.parametrize("header", ['"other"', '"ta"', '""', "", "nonsense"])
def test_other_etag_is_modified(header: str) -> None:
    assert not is_not_modified(a_request(If_None_Match=header), "tag")


def test_representation_without_etag_is_always_modified() -> None:
    """A refusal has no ETag, so that every request gets its body."""
    assert not is_not_modified(a_request(If_None_Match="*"), None)


def test_if_match_is_ignored() -> None:
    """A 412 would carry the whole profile."""
    assert not is_not_modified(a_request(If_Match='"tag"'), "tag")
