"""The commands in README.md, docs/api.md and the demo print what is shown."""

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

from tests.helpers.processes import BIN, free_port, wait_until
from tests.helpers.redis_servers import require

ROOT = Path(__file__).parents[2]
README, API = ROOT / "README.md", ROOT / "docs" / "api.md"
BREAK_IT = ROOT / "docs" / "break-it-on-purpose.md"


def sessions(text: str) -> list[tuple[str, str]]:
    """Return each ``$ command`` of the console blocks with the output below it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


def without_chance(printed: str) -> str:
    """Replace the parts of *printed* that change: moments, ports, ids, jitter."""
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
def demo() -> Iterator[tuple[str, str, str]]:
    """``profile-proxy demo``, as started by ``make run``.

    Yields its address, its simulated Meta's address, and its output.
    """
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    # The demo ignores the other settings of a terminal.
    env |= {"PROXY_LISTEN": f"127.0.0.1:{port}", "PROXY_PROFILE_TTL": "nonsense"}
    # Its own folder, to check that it leaves nothing; short, for the socket's path.
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    env["TMPDIR"] = str(folder)
    process = subprocess.Popen(
        [BIN / "profile-proxy", "demo"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    printed = ""
    while "Ctrl-C" not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    (simulator,) = re.findall(r"a simulated Meta at (\S+)", printed)

    def is_up() -> bool:
        try:
            return requests.get(f"http://localhost:{port}/healthz", timeout=1).ok
        except requests.ConnectionError:
            return False

    wait_until(is_up, 15, "the demo answers")
    assert 9100 <= int(simulator.rpartition(":")[2]) <= 9200
    yield f"localhost:{port}", simulator.removeprefix("http://"), printed
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/profiles/1254001000000001" in printed
    assert f"{simulator}/_sim/people/1254001000000002/writes" in printed
    assert f"http://127.0.0.1:{port}/pages/shop/profiles/1254101000000001" in printed
    folder.rmdir()  # It fails if the folder is not empty.
    with pytest.raises(requests.ConnectionError):
        requests.get(simulator, timeout=1)


def test_every_command_of_the_readme_prints_the_output_shown(
    demo: tuple[str, str, str],
) -> None:
    """Run in the order of the page, as a reader would type them."""
    require(shutil.which("curl") is not None, "curl")

    check_sessions(README, demo)


def check_sessions(page: Path, demo: tuple[str, str, str]) -> None:
    """Type each command of the console blocks of *page*, and compare what it prints."""
    proxy, simulator, _ = demo
    for command, printed in sessions(page.read_text()):
        typed = command.replace("localhost:8080", proxy)
        typed = re.sub(r"127\.0\.0\.1:\d+", simulator, typed)
        run = subprocess.run(
            ["bash", "-c", typed.replace("curl ", "curl --silent ", 1)],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert without_chance(run.stdout) == without_chance(printed), command


def in_a_shell(typed: str) -> str:
    """Run *typed*, which must not fail, and return its output."""
    run = subprocess.run(
        ["bash", "-c", typed], capture_output=True, text=True, timeout=20, check=True
    )
    return run.stdout


def test_commands_of_the_api_page_print_the_output_shown(
    demo: tuple[str, str, str],
) -> None:
    """Each block is run as if pasted into a shell."""
    require(shutil.which("curl") is not None, "curl")

    blocks = re.findall(r"```console\n(.*?)```", API.read_text(), re.DOTALL)
    for block in blocks:
        lines = block.splitlines()
        commands = "\n".join(x[2:] for x in lines if x.startswith("$ "))
        printed = "\n".join(x for x in lines if not x.startswith("$ "))
        typed = commands.replace("localhost:8080", demo[0])
        assert in_a_shell(typed).strip() == printed, commands

    assert len(blocks) == 2


def test_every_command_of_the_demo_has_the_status_shown(
    demo: tuple[str, str, str],
) -> None:
    """If none is shown beside a command, it succeeds."""
    require(shutil.which("curl") is not None, "curl")

    proxy, simulator, printed = demo
    assert requests.post(f"http://{simulator}/_sim/reset", timeout=5).ok
    flush = {"url": f"http://{proxy}/admin/flush", "json": {"what": "all"}}
    assert requests.post(**flush, timeout=5).ok
    commands = re.findall(r"^  (curl .+?)(?:   (.*))?$", printed, re.MULTILINE)
    for command, about in commands:
        answer = in_a_shell(command.replace("curl ", "curl --silent ", 1))
        if " -i " in command:
            status = re.search(r"\b[2-5]\d\d$", about)
            assert answer.split()[1] == (status[0] if status else "200"), command
        assert answer, command

    assert len(commands) > 15


def test_operator_commands_work_with_the_demo_s_settings(
    demo: tuple[str, str, str],
) -> None:
    """The demo prints the settings to use."""
    typed = "\n".join(demo[2].partition("And the commands: ")[2].splitlines()[1:5])
    command = typed.split()[-2]

    assert "entries.profile" in in_a_shell(typed)
    more = typed.removesuffix("stats")
    assert "hit ratio" in in_a_shell(f"{more} top")
    assert "Eve" in in_a_shell(f"{more} get 1254001000000005")
    assert "Eve" in in_a_shell(f"{more} get 1254101000000005 --page shop")
    assert Path(command).name == "profile-proxy"


def test_readme_shows_each_kind_of_request() -> None:
    """A miss, a hit, a refusal that ends, a person not found, an erase and a flush."""
    commands = " ".join(command for command, _ in sessions(README.read_text()))

    for what in ("000001", "fields=", "000002", "writes", "000003", "DELETE", "flush"):
        assert what in commands
    assert "/pages/shop/" in commands


def test_every_fault_on_purpose_has_the_effect_shown(
    demo: tuple[str, str, str],
) -> None:
    """The last of this module, because it closes gates."""
    require(shutil.which("curl") is not None, "curl")

    check_sessions(BREAK_IT, demo)
