"""The fast path answers before granian makes a WSGI environ; views get all the rest.

The names checked here are private to granian. If one is gone, granian calls an app in
another way, and `proxy.server.granian_hook` must be adapted to it.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
from flask import Flask
from granian.server import mp

from proxy.fast_path.middleware import FastPathMiddleware
from proxy.server.granian_hook import fast_path_first
from proxy.web.request_params import SNAPSHOT

WORKER = """
import os
import sys
from granian.server import mp
from proxy.live_files import read_settings
from proxy.server.phase import SharedPhase
from proxy.server.worker import load_worker

load_worker(read_settings(os.environ), SharedPhase(), os.getppid(), sys.argv[1], [], 0)
print(mp._wsgi_call_wrap.__qualname__)
"""


class Protocol:
    """In place of granian's object for one request, which gets the response."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(
        self, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.sent.append((status, headers, body))


def scope(path: str) -> dict[str, Any]:
    return {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}


@pytest.fixture
def answer() -> Any:
    """Granian's own callback, with our fast path in front."""

    def fast_path(environ: dict[str, Any]) -> Any:
        assert "wsgi.version" not in environ
        if environ["PATH_INFO"] == "/hit":
            return 403, [("Age", "1")], b"sent at once"
        environ[SNAPSHOT] = "already read"
        return None

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert environ["wsgi.version"] == (1, 0)
        start_response("201 CREATED", [("Seen", environ[SNAPSHOT])])
        return [b"sent by ", b"the app"]

    service = Flask("service")
    service.wsgi_app = FastPathMiddleware(fast_path, app)  # type: ignore[method-assign]
    return fast_path_first(mp._wsgi_call_wrap)(service, {}, None)  # type: ignore


def test_hit_is_sent_by_the_fast_path(answer) -> None:
    protocol = Protocol()

    assert answer(protocol, scope("/hit")) == 403
    assert protocol.sent == [(403, [("Age", "1")], b"sent at once")]


def test_other_requests_reach_the_app_with_the_snapshot(answer) -> None:
    protocol = Protocol()

    assert answer(protocol, scope("/other")) == 201
    assert protocol.sent == [(201, [("Seen", "already read")], b"sent by the app")]


def test_granian_calls_the_private_name_that_the_hook_replaces() -> None:
    """And with the parameters that the hook passes on."""
    worker = inspect.unwrap(mp.MPServer._spawn_wsgi_worker)

    assert "_wsgi_call_wrap" in worker.__code__.co_names
    assert list(inspect.signature(mp._wsgi_call_wrap).parameters) == [  # type: ignore
        "callback",
        "scope_opts",
        "access_log_fmt",
    ]


def test_worker_installs_the_hook(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        env=os.environ | {"PROXY_PAGE_TOKEN": "EAACANARY", "PROXY_NEAR_ENTRIES": "0"},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.stdout.startswith(fast_path_first.__name__), done.stderr
