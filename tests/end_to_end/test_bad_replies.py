"""Whatever Meta sends: the right failure, in time, and nothing is stored by it."""

from __future__ import annotations

import base64
import time

import pytest

from tests.helpers.processes import PAGE_TOKEN, crowd

WHO = crowd(7)
NOT_KEPT = ("graph_unavailable", 502)
TOO_LATE = ("graph_timeout", 504)


def raw(text: str) -> dict:
    return {"raw": text}


BAD = {
    "html": (raw("<!DOCTYPE html><title>Facebook | Error</title>"), NOT_KEPT),
    "html with 502": (raw("<html>Sorry</html>") | {"status": 502}, NOT_KEPT),
    "truncated json": (raw('{"id":"' + WHO + '","name":"A'), NOT_KEPT),
    "broken json": (raw("{name: 1}"), NOT_KEPT),
    "a list": (raw("[]"), NOT_KEPT),
    "null": (raw("null"), NOT_KEPT),
    "a string": (raw('"hello"'), NOT_KEPT),
    "an empty object": (raw("{}"), NOT_KEPT),
    "nothing": (raw(""), NOT_KEPT),
    "deep json": (raw("[" * 200_000), NOT_KEPT),
    "another person": ({"body": {"id": crowd(8), "name": "Eve"}}, NOT_KEPT),
    "an id as a number": ({"body": {"id": int(WHO), "name": "A"}}, NOT_KEPT),
    "a name as a number": ({"body": {"id": WHO, "name": 7}}, NOT_KEPT),
    "a count as text": ({"body": {"id": WHO, "follower_count": "7"}}, NOT_KEPT),
    "a flag as a number": ({"body": {"id": WHO, "is_verified_user": 1}}, NOT_KEPT),
    "a picture as a list": ({"body": {"id": WHO, "profile_pic": []}}, NOT_KEPT),
    "a picture of another kind": (
        {"body": {"id": WHO, "profile_pic": "javascript:alert(1)"}},
        NOT_KEPT,
    ),
    "an error in a 200": (
        {"body": {"error": {"code": 190, "message": "dead"}}, "status": 200},
        ("token_rejected", 502),
    ),
    "an error of an unknown code": (
        {"body": {"error": {"code": 31337}}, "status": 400},
        NOT_KEPT,
    ),
    "an error that says its token": (
        {
            "body": {
                "error": {
                    "code": 190,
                    "message": f"Malformed access token {PAGE_TOKEN}",
                    "fbtrace_id": PAGE_TOKEN + "!",
                }
            },
            "status": 400,
        },
        ("token_rejected", 502),
    ),
    "a gateway's own error": (
        {"body": {"name": "Bad Gateway", "message": "upstream"}, "status": 502},
        NOT_KEPT,
    ),
    "a profile with a redirect": (
        {"body": {"id": WHO, "name": "A"}, "status": 307},
        NOT_KEPT,
    ),
    "a redirect": (
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}, "raw": ""},
        NOT_KEPT,
    ),
    "not what its encoding says": (
        {"raw": "plainly not gzip", "headers": {"Content-Encoding": "gzip"}},
        NOT_KEPT,
    ),
    "bytes": (
        {"raw_base64": base64.b64encode(bytes(range(256))).decode()},
        NOT_KEPT,
    ),
    "30 MB": ({"wire": "huge"}, NOT_KEPT),
    "a gzip bomb": ({"wire": "gzip_bomb"}, NOT_KEPT),
    "a body cut short": ({"wire": "truncate"}, NOT_KEPT),
    "a closed connection": ({"wire": "drop"}, NOT_KEPT),
    "a reset connection": ({"wire": "reset"}, NOT_KEPT),
    "a byte a second": ({"wire": "drip"}, TOO_LATE),
    "a byte of the head a second": ({"wire": "drip_headers"}, TOO_LATE),
    "silence": ({"wire": "hang"}, TOO_LATE),
}


@pytest.mark.parametrize("name", BAD)
def test_a_reply_that_is_none_is_a_failure_in_time(stack, name) -> None:
    """The code tells which; the deadline holds; no entry, no 500, no token."""
    script, (code, status) = BAD[name]
    stack.meta.person(WHO, **script)

    started = time.monotonic()
    answer = stack.service.get(f"/profiles/{WHO}")
    took = time.monotonic() - started

    assert (answer.json()["code"], answer.status_code) == (code, status)
    assert took < stack.graph_timeout + 0.5
    assert not list(stack.redis.scan_iter("pp:[el]:*"))
    assert PAGE_TOKEN not in answer.text + str(answer.headers) + stack.service.log()


@pytest.mark.parametrize("wire", ["gzip", "chunked"])
def test_a_good_reply_may_come_in_any_wrapping(stack, wire) -> None:
    """Compressed or chunked, it is the same profile."""
    stack.meta.person(WHO, wire=wire)

    assert stack.service.get(f"/profiles/{WHO}").json()["id"] == WHO


def test_meta_that_is_not_there_is_a_failure(stack) -> None:
    """A connection that is refused, tried once more, and told."""
    from tests.helpers.processes import Service, free_port

    settings = stack.settings | {"GRAPH_URL": f"http://127.0.0.1:{free_port()}"}
    service = Service(**settings)
    try:
        answer = service.get(f"/profiles/{WHO}")
        log = service.log()
    finally:
        service.stop()

    assert (answer.status_code, answer.json()["code"]) == (502, "graph_unavailable")
    assert PAGE_TOKEN not in log


def test_a_throttle_says_for_how_long(stack) -> None:
    """Meta counts in minutes, Retry-After in seconds."""
    stack.meta.order("throttle", code=80002, minutes=3)

    answer = stack.service.get(f"/profiles/{WHO}")

    assert (answer.status_code, answer.json()["code"]) == (503, "throttled")
    assert answer.headers["Retry-After"] == "180"
    assert not list(stack.redis.scan_iter("pp:e:*"))
