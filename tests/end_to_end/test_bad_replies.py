"""Any reply of Meta: the right failure in time, and nothing stored."""

from __future__ import annotations

import base64
import time

import pytest

from tests.helpers.processes import PAGE_TOKEN, Service, crowd, free_port

WHO = crowd(7)
NOT_STORED = ("graph_unavailable", 502)
TOO_LATE = ("graph_timeout", 504)


def raw(text: str) -> dict:
    return {"raw": text}


BAD = {
    "html": (raw("<!DOCTYPE html><title>Facebook | Error</title>"), NOT_STORED),
    "html with 502": (raw("<html>Sorry</html>") | {"status": 502}, NOT_STORED),
    "truncated json": (raw('{"id":"' + WHO + '","name":"A'), NOT_STORED),
    "broken json": (raw("{name: 1}"), NOT_STORED),
    "a list": (raw("[]"), NOT_STORED),
    "null": (raw("null"), NOT_STORED),
    "a string": (raw('"hello"'), NOT_STORED),
    "an empty object": (raw("{}"), NOT_STORED),
    "nothing": (raw(""), NOT_STORED),
    "deep json": (raw("[" * 200_000), NOT_STORED),
    "another person": ({"body": {"id": crowd(8), "name": "Eve"}}, NOT_STORED),
    "an id as a list": ({"body": {"id": [WHO], "name": "A"}}, NOT_STORED),
    "an id without a field": ({"body": {"id": WHO, "bio": "A"}}, NOT_STORED),
    "an error in a 200": (
        {"body": {"error": {"code": 190, "message": "dead"}}, "status": 200},
        ("token_rejected", 502),
    ),
    "an error of an unknown code": (
        {"body": {"error": {"code": 31337}}, "status": 400},
        NOT_STORED,
    ),
    "an error that quotes its token": (
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
        NOT_STORED,
    ),
    "a profile with a redirect": (
        {"body": {"id": WHO, "name": "A"}, "status": 307},
        NOT_STORED,
    ),
    "a redirect": (
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}, "raw": ""},
        NOT_STORED,
    ),
    "an encoding that does not match": (
        {"raw": "plainly not gzip", "headers": {"Content-Encoding": "gzip"}},
        NOT_STORED,
    ),
    "bytes": (
        {"raw_base64": base64.b64encode(bytes(range(256))).decode()},
        NOT_STORED,
    ),
    "30 MB": ({"wire": "huge"}, NOT_STORED),
    "a gzip bomb": ({"wire": "gzip_bomb"}, NOT_STORED),
    "a body cut short": ({"wire": "truncate"}, NOT_STORED),
    "a closed connection": ({"wire": "drop"}, NOT_STORED),
    "a reset connection": ({"wire": "reset"}, NOT_STORED),
    "a byte a second": ({"wire": "drip"}, TOO_LATE),
    "a byte of the head a second": ({"wire": "drip_headers"}, TOO_LATE),
    "silence": ({"wire": "hang"}, TOO_LATE),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_reply_is_a_failure_in_time(stack, name) -> None:
    """It has its own code, and causes no entry, no 500 and no leak of the token."""
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
def test_valid_reply_may_be_compressed_or_chunked(stack, wire) -> None:
    """It is the same profile."""
    stack.meta.person(WHO, wire=wire)

    assert stack.service.get(f"/profiles/{WHO}").json()["id"] == WHO


def test_refused_connection_to_meta_is_a_failure(stack) -> None:
    """The service retries once, and then answers 502."""
    settings = stack.settings | {"GRAPH_URL": f"http://127.0.0.1:{free_port()}"}
    service = Service(**settings)
    try:
        answer = service.get(f"/profiles/{WHO}")
        log = service.log()
    finally:
        service.stop()

    assert (answer.status_code, answer.json()["code"]) == (502, "graph_unavailable")
    assert PAGE_TOKEN not in log


def test_throttled_answer_has_a_retry_after(stack) -> None:
    """Meta counts in minutes, Retry-After in seconds."""
    stack.meta.order("throttle", code=80002, minutes=3)

    answer = stack.service.get(f"/profiles/{WHO}")

    assert (answer.status_code, answer.json()["code"]) == (503, "throttled")
    assert answer.headers["Retry-After"] == "180"
    assert not list(stack.redis.scan_iter("pp:e:*"))
