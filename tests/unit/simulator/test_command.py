"""The simulator as a process of its own."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

ADA = "1254001000000001"


@contextmanager
def started(*options: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy.simulator", "--listen", "127.0.0.1:0", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def address(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    url = urlsplit(json.loads(process.stdout.readline())["url"])
    return url.hostname or "", url.port or 0


def test_it_says_where_it_listens_and_ends_when_told() -> None:
    """One line of JSON, then SIGTERM and a good exit, though a client is there."""
    with started() as process:
        line = http.client.HTTPConnection(*address(process), timeout=10)
        line.request("GET", "/_sim/health")
        status = line.getresponse().status

        process.send_signal(signal.SIGTERM)

        assert (status, process.wait(5)) == (200, 0)
        line.close()


def test_it_ends_with_its_stdin() -> None:
    """Whoever started it holds the other end, and may die without a word."""
    with started("--exit-with-stdin") as process:
        address(process)
        assert process.stdin is not None

        process.stdin.close()

        assert process.wait(5) == 0


def test_the_token_comes_from_the_environment_and_into_no_log() -> None:
    """A verbose line has the path and the status only."""
    with started("--verbose", SIM_TOKEN="EAAFROMENV") as process:
        line = http.client.HTTPConnection(*address(process), timeout=10)
        line.request("GET", f"/v25.0/{ADA}?fields=name&access_token=EAAFROMENV")
        status = line.getresponse().status
        line.close()
        process.terminate()
        assert process.stderr is not None

        log = process.stderr.read()

    assert (status, log) == (200, f"GET /v25.0/{ADA} 200 whole\n")


def test_an_address_in_use_is_told() -> None:
    """With a line on stderr and exit code 1."""
    with started() as process:
        host, port = address(process)
        second = [sys.executable, "-m", "proxy.simulator", "--listen", f"{host}:{port}"]

        done = subprocess.run(second, capture_output=True, text=True, timeout=10)

    assert done.returncode == 1 and f"cannot listen on {host}:{port}" in done.stderr
