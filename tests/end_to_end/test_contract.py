"""The answers agree with openapi.yaml and with the rules of HTTP."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable

import pytest
from httplint import HttpRequestLinter, HttpResponseLinter, levels

from tests.helpers.processes import ADA, BEN, BIN, CLEO, IVO, VERIFY_TOKEN, crowd

EXPECTED = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]

[generation]
max-examples = 50

[[operations]]
include-path-regex = "^/pages/"
generation.max-examples = 5
phases.coverage.enabled = false

[[operations]]
include-operation-id-regex = "^readProfile"

[operations.checks]
negative_data_rejection.expected-statuses = ["2xx", "4xx", "5xx"]

[[operations]]
include-operation-id-regex = "^readNode"

[operations.checks]
positive_data_acceptance.expected-statuses = [
    "2xx", "3xx", "400", "401", "403", "404", "5xx"
]
"""
"""The routes below ``/pages/`` are the same functions, so few examples are enough.
Many unknown people in a row make a lost permission likely, which is a 502; and on a
busy machine the simulated Meta or the store may time out. The description lists the
routes that may answer so, and that is checked. A 500 is never accepted.
A list may have blank items, and items with commas, which the description leaves out so
that generated clients need not know them.
At the Graph door a refusal is a 400 of a valid request; and an invented
``access_token`` is refused even beside a valid header."""


def test_every_answer_matches_the_description(stack, guarded) -> None:
    """Valid or not, each request gets a described status, shape and type; no 500.

    Requests have a key, because the description requires one.
    """
    config = guarded.file.parent / "schemathesis.toml"
    config.write_text(EXPECTED)
    run = subprocess.run(
        [
            BIN / "schemathesis",
            f"--config-file={config}",
            "run",
            f"{guarded.service.url}/openapi.yaml",
            "--no-color",
            f"--header=Authorization: Bearer {guarded.both}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=guarded.file.parent,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "Tested: 25" in run.stdout
    assert "Traceback" not in guarded.service.log()


def lint(port: int, method: str, path: str, **headers: str) -> set[tuple[str, str]]:
    """Return the (field, summary) of each bad note of httplint on the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    request = HttpRequestLinter(start_time=time.time())
    request.process_request_topline(
        method.encode(), f"http://localhost:{port}{path}".encode(), b"1.1"
    )
    request.process_headers([(b"Host", f"localhost:{port}".encode())])
    request.finish_content(True)
    connection.request(method, path, headers={"Host": "localhost"} | headers)
    answer = connection.getresponse()
    linter = HttpResponseLinter(start_time=time.time())
    linter.request = request
    linter.is_head_response = method == "HEAD"
    linter.process_response_topline(
        b"1.1", str(answer.status).encode(), answer.reason.encode()
    )
    linter.process_headers([(k.encode(), v.encode()) for k, v in answer.getheaders()])
    linter.feed_content(answer.read())
    linter.finish_content(True)
    connection.close()
    return {
        (note.subject, str(note.summary))
        for note in linter.notes
        if note.level is levels.BAD
    }


HANDSHAKE = f"hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1"

PATHS: dict[str, Callable[[], tuple[str, str]]] = {
    "a profile": lambda: ("GET", f"/profiles/{ADA}"),
    "a profile's head": lambda: ("HEAD", f"/profiles/{ADA}"),
    "a refusal": lambda: ("GET", f"/profiles/{BEN}"),
    "a person not found": lambda: ("GET", f"/profiles/{CLEO}"),
    "a picture": lambda: ("GET", f"/profiles/{ADA}/picture"),
    "initials": lambda: ("GET", f"/profiles/{BEN}/picture?fallback=initials"),
    "a batch": lambda: ("GET", f"/profiles?ids={ADA},{BEN},x"),
    "a failure": lambda: ("GET", f"/profiles/{IVO}"),
    "a node": lambda: ("GET", f"/v25.0/{ADA}"),
    "a node that is refused": lambda: ("GET", f"/v25.0/{BEN}"),
    "a node that fails": lambda: ("GET", f"/v25.0/{IVO}"),
    "no node": lambda: ("GET", "/v25.0/?ids=1"),
    "a node without a version": lambda: ("GET", f"/{ADA}/"),
    "a bad id": lambda: ("GET", "/profiles/x"),
    "a bad path": lambda: ("GET", "/nothing"),
    "a bad method": lambda: ("PUT", f"/profiles/{ADA}"),
    "an inspection": lambda: ("GET", f"/admin/profiles/{ADA}"),
    "a forced fetch": lambda: ("POST", f"/admin/profiles/{ADA}/refresh"),
    "an erasure": lambda: ("DELETE", f"/admin/profiles/{crowd(1)}"),
    "a handshake": lambda: ("GET", f"/webhooks/instagram?{HANDSHAKE}"),
    "a bad handshake": lambda: ("GET", "/webhooks/instagram"),
    "health": lambda: ("GET", "/healthz"),
    "readiness": lambda: ("GET", "/readyz"),
    "the metrics": lambda: ("GET", "/metrics"),
    "the description": lambda: ("GET", "/openapi.yaml"),
}


@pytest.mark.parametrize("what", PATHS)
def test_answer_has_no_bad_note_of_httplint(stack, what) -> None:
    """httplint reads the headers as a cache, a proxy or a browser would."""
    method, path = PATHS[what]()

    first = lint(stack.service.port, method, path)
    second = lint(stack.service.port, method, path)

    assert (first, second) == (set(), set())


def test_304_has_no_bad_note_of_httplint(stack) -> None:
    """It answers the conditional request of a caller with its own cache."""
    tag = stack.service.get(f"/profiles/{ADA}").headers["ETag"]

    bad = lint(stack.service.port, "GET", f"/profiles/{ADA}", **{"If-None-Match": tag})

    assert bad == set()
