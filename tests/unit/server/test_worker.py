"""A worker's core, and the environment that its requests see."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.server.worker import cores_of_workers

WORKER = """
import json, os, sys
from granian.server import mp
from proxy.fast_path.middleware import FastPathMiddleware, no_fast_path
from proxy.live_files import read_settings
from proxy.server.phase import SharedPhase
from proxy.server.worker import load_worker

seen = []

def view(environ, start_response):
    seen.append({name: value for name, value in environ.items() if name.isupper()})
    start_response("200 OK", [])
    return [b""]

class Protocol:
    def response_bytes(self, *response):
        pass

app = load_worker(
    read_settings(os.environ), SharedPhase(), os.getppid(), sys.argv[1], [], 0
)
app.wsgi_app = FastPathMiddleware(no_fast_path, view)
mp._wsgi_call_wrap(app, {}, None)(Protocol(), {"PATH_INFO": "/", "HTTP_HOST": "h"})
print(json.dumps([dict(os.environ), seen[0]]))
"""

CANARY = "canary0123456789"


def test_as_many_workers_as_cores_get_one_each() -> None:
    """The cores that we may run on, which need not be the first of the machine."""
    assert cores_of_workers(3, {6, 2, 4}, 3) == [2, 4, 6]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_more_or_fewer_workers_than_cores_are_not_pinned(workers: int) -> None:
    """Two on one core would leave another idle."""
    assert cores_of_workers(workers, {0, 1, 2}, 3) == []


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_under_a_quota_are_not_pinned(workers: int) -> None:
    """Otherwise every container with two of eight cores would use the first two."""
    assert cores_of_workers(workers, range(8), 2) == []


def test_workers_are_not_pinned_where_the_system_reports_no_cores() -> None:
    """One core counts as usable there."""
    assert cores_of_workers(1, (), 1) == []


def test_worker_and_its_requests_see_no_secret_of_the_environment(
    tmp_path: Path,
) -> None:
    """Nor a variable that would pass for a header; libraries' variables stay."""
    env = {
        "PROXY_PAGE_TOKEN": CANARY,
        "PROXY_NEAR_ENTRIES": "0",
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "db_password": CANARY,
        "HTTPS_PROXY": f"http://user:{CANARY}@proxy:3128",
        "HTTP_X_API_KEY": CANARY,
        "HTTP_FORWARDED": CANARY,
        "TZ": "UTC",
    }

    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    environment, of_request = json.loads(done.stdout)
    assert CANARY not in done.stdout
    assert not [name for name in environment if name.startswith("PROXY_")]
    assert environment["TZ"] == of_request["TZ"] == "UTC"
    assert of_request["HTTP_HOST"] == "h"
