"""Every command of the README, run against the demo, gives what the README prints."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from servers import require
from services import BIN, free_port, wait_until

README = Path(__file__).parents[2] / "README.md"


def sessions(text: str) -> list[tuple[str, str]]:
    """Each ``$ command`` in the console blocks, and what is printed under it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


def without_chance(printed: str) -> str:
    """*printed* without what differs from run to run: moments, ports, ids, jitter."""
    printed = printed.replace("\r", "")
    for pattern, instead in (
        (r"\w{3}, \d\d \w{3} \d{4} [\d:]+ GMT", "DATE"),
        (r"\d{4}-\d\d-\d\dT[\d:]+Z", "MOMENT"),
        (r"127\.0\.0\.1:\d+", "SIMULATOR"),
        (r'(etag: )"\w+"', r"\1TAG"),
        (r"(x-request-id: )\w+", r"\1ID"),
        (r"(max-age=|ttl=)3\d{3}", r"\1SECONDS"),
        (r"age: \d+", "age: SECONDS"),
        (r"oh=[\w-]+&oe=[0-9A-F]+", "SIGNATURE"),
        (r'("fbtrace_id":)"[\w/+=-]+"', r"\1TRACE"),
        (r'(\{"id":)"[0-9a-f-]{36}"', r"\1RECEIPT"),
        (r"content-length: \d+", "content-length: BYTES"),
    ):
        printed = re.sub(pattern, instead, printed)
    head, blank, body = printed.rpartition("\n\n")
    return "\n".join(sorted(head.splitlines())) + blank + body.strip()


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[str, str]]:
    """``profile-proxy demo``, which is what ``make run`` starts.

    Where it is, and where its simulated Meta.
    """
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    # Whatever else is set in a terminal is none of the demo's business.
    env |= {"PROXY_LISTEN": f"127.0.0.1:{port}", "PROXY_PROFILE_TTL": "nonsense"}
    # Its own place for what it must not leave behind; short, for the socket's path.
    place = Path(tempfile.mkdtemp(prefix="demo-"))
    env["TMPDIR"] = str(place)
    process = subprocess.Popen(
        [BIN / "profile-proxy", "demo"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    told = ""
    while "Ctrl-C" not in told:
        line = process.stdout.readline()
        assert line, told
        told += line
    (simulator,) = re.findall(r"a simulated Meta at (\S+)", told)

    def is_up() -> bool:
        try:
            return requests.get(f"http://localhost:{port}/healthz", timeout=1).ok
        except requests.ConnectionError:
            return False

    wait_until(is_up, 15, "the demo answers")
    yield f"localhost:{port}", simulator.removeprefix("http://")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/profiles/1254001000000001" in told
    assert f"{simulator}/_sim/people/1254001000000002/writes" in told
    place.rmdir()  # which is an error if anything is left in it
    with pytest.raises(requests.ConnectionError):
        requests.get(simulator, timeout=1)


def test_every_command_of_the_readme_prints_what_it_says(
    demo: tuple[str, str],
) -> None:
    """In the order of the page, as a reader would type them."""
    require(shutil.which("curl") is not None, "curl")

    proxy, simulator = demo
    for command, printed in sessions(README.read_text()):
        typed = command.replace("localhost:8080", proxy)
        typed = re.sub(r"127\.0\.0\.1:\d+", simulator, typed)
        told = subprocess.run(
            ["bash", "-c", typed.replace("curl ", "curl --silent ", 1)],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert without_chance(told.stdout) == without_chance(printed), command


def test_the_readme_has_the_sessions_it_should() -> None:
    """A miss, a hit, a refusal that heals, somebody gone, an erasure and a flush."""
    commands = " ".join(command for command, _ in sessions(README.read_text()))

    for what in ("000001", "fields=", "000002", "writes", "000003", "DELETE", "flush"):
        assert what in commands
