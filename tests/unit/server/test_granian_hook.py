"""Hits are asked for before granian makes WSGI of a request, and nothing else is lost.

The names that are looked for here are granian's own. If one is gone, it has another
way of calling an app, and `proxy.server.granian_hook` must learn it.
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
    """What granian has for one request, to be told the answer."""

    def __init__(self) -> None:
        self.told: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(
        self, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.told.append((status, headers, body))


def scope(path: str) -> dict[str, Any]:
    return {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}


@pytest.fixture
def answer() -> Any:
    """Of granian's own making, but that it has us in front."""

    def hits(environ: dict[str, Any]) -> Any:
        assert "wsgi.version" not in environ
        if environ["PATH_INFO"] == "/hit":
            return 403, [("Age", "1")], b"told at once"
        environ[SNAPSHOT] = "nobody"
        return None

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert environ["wsgi.version"] == (1, 0)
        start_response("201 CREATED", [("Seen", environ[SNAPSHOT])])
        return [b"told by ", b"the app"]

    service = Flask("service")
    service.wsgi_app = FastPathMiddleware(hits, app)  # type: ignore[method-assign]
    return fast_path_first(mp._wsgi_call_wrap)(service, {}, None)  # type: ignore


def test_a_hit_is_told_as_it_is(answer) -> None:
    protocol = Protocol()

    assert answer(protocol, scope("/hit")) == 403
    assert protocol.told == [(403, [("Age", "1")], b"told at once")]


def test_all_else_is_the_apps_with_what_was_seen(answer) -> None:
    protocol = Protocol()

    assert answer(protocol, scope("/other")) == 201
    assert protocol.told == [(201, [("Seen", "nobody")], b"told by the app")]


def test_granian_asks_by_the_name_that_we_take() -> None:
    """And with what it is called with here."""
    worker = inspect.unwrap(mp.MPServer._spawn_wsgi_worker)

    assert "_wsgi_call_wrap" in worker.__code__.co_names
    assert list(inspect.signature(mp._wsgi_call_wrap).parameters) == [  # type: ignore
        "callback",
        "scope_opts",
        "access_log_fmt",
    ]


def test_a_worker_of_ours_has_granian_ask_for_hits_first(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        env=os.environ | {"PROXY_PAGE_TOKEN": "EAACANARY", "PROXY_NEAR_ENTRIES": "0"},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.stdout.startswith(fast_path_first.__name__), done.stderr
