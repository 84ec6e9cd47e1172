"""A real granian asks the fast path before it builds a WSGI environ."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from tests.helpers.processes import free_port, wait_until

SERVER = """
import sys
from flask import Flask
from granian.constants import Interfaces
from granian.server.mp import MPServer
from proxy.fast_path.middleware import FastPathMiddleware
from proxy.server.granian_hook import ask_fast_path_before_wsgi


def kind(environ):
    return b"WSGI" if "wsgi.version" in environ else b"not yet WSGI"


def fast_path(environ):
    if environ["PATH_INFO"] == "/hit":
        return 404, [("Age", "7"), ("Content-Type", "text/plain")], kind(environ)
    return None


def view(environ, start_response):
    start_response("201 CREATED", [("Content-Type", "text/plain")])
    return [kind(environ), environ["wsgi.input"].read()]


def load():
    ask_fast_path_before_wsgi()
    app = Flask("service")
    app.wsgi_app = FastPathMiddleware(fast_path, view)
    return app


options = {"port": int(sys.argv[1]), "interface": Interfaces.WSGI}
MPServer("service", **options).serve(target_loader=load, wrap_loader=False)
"""


@pytest.fixture
def url() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return requests.get(url, timeout=5).status_code == 201
        except requests.ConnectionError:
            return False

    try:
        wait_until(is_up, 10, "it is up")
        yield url
    finally:
        server.terminate()
        server.wait(10)


def test_fast_path_is_asked_before_the_environ_is_wsgi(url: str) -> None:
    """Only a request that the fast path passes on gets a WSGI environ."""
    hit = requests.get(f"{url}/hit", timeout=5)
    other = requests.post(f"{url}/other", data=b", and a body", timeout=5)

    assert (hit.status_code, hit.headers["Age"], hit.text) == (404, "7", "not yet WSGI")
    assert (other.status_code, other.text) == (201, "WSGI, and a body")
