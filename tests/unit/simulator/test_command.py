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


def test_simulator_prints_its_address_and_ends_on_sigterm() -> None:
    """One line of JSON; after SIGTERM exit status 0, though a client is connected."""
    with started() as process:
        connection = http.client.HTTPConnection(*address(process), timeout=10)
        connection.request("GET", "/_sim/health")
        status = connection.getresponse().status

        process.send_signal(signal.SIGTERM)

        assert (status, process.wait(5)) == (200, 0)
        connection.close()


def test_simulator_ends_with_its_stdin() -> None:
    """The process that started it holds the other end, and may be killed."""
    with started("--exit-with-stdin") as process:
        address(process)
        assert process.stdin is not None

        process.stdin.close()

        assert process.wait(5) == 0


def test_token_is_read_from_the_environment_and_never_logged() -> None:
    """A verbose line has only the path and the status."""
    with started("--verbose", SIM_TOKEN="EAAFROMENV") as process:
        connection = http.client.HTTPConnection(*address(process), timeout=10)
        connection.request("GET", f"/v25.0/{ADA}?fields=name&access_token=EAAFROMENV")
        status = connection.getresponse().status
        connection.close()
        process.terminate()
        assert process.stderr is not None

        log = process.stderr.read()

    assert (status, log) == (200, f"GET /v25.0/{ADA} 200 whole\n")


def test_address_in_use_is_reported() -> None:
    """With a line on stderr and exit code 1."""
    with started() as process:
        host, port = address(process)
        second = [sys.executable, "-m", "proxy.simulator", "--listen", f"{host}:{port}"]

        done = subprocess.run(second, capture_output=True, text=True, timeout=10)

    assert done.returncode == 1 and f"cannot listen on {host}:{port}" in done.stderr


def test_port_that_is_taken_is_passed_over_on_demand() -> None:
    """So that a demo beside another finds the next one."""
    with started() as first:
        host, port = address(first)
        listen = "--listen", f"{host}:{port}"

        with started(*listen, "--or-next") as second:
            _, next_port = address(second)
        with started(*listen) as third:
            _, error = third.communicate(timeout=10)

    assert port < next_port <= port + 100
    assert third.returncode == 1
    assert error.startswith(f"cannot listen on {host}:{port}: ")
