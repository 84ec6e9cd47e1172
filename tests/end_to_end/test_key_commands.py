"""``key new`` and ``key list``, beside a service that reads the same file."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from proxy.watched_file import WatchedFile
from proxy.web.auth import read_keys
from tests.helpers.commands import run_command
from tests.helpers.processes import BIN, new_key


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_key_new_prints_only_the_line_for_the_file_on_stdout() -> None:
    """So that it can be appended; the key itself goes to stderr."""
    result = run_command("key", "new", "inbox", "--scopes", "read,admin")

    (key,) = re.findall("^pp_.+$", result.stderr, re.MULTILINE)
    assert result.stdout == f"inbox read,admin {digest_of(key)}\n"


def test_key_new_as_json_prints_the_key_and_its_line() -> None:
    """From stdout, with nothing on stderr to be logged by mistake."""
    result = run_command("key", "new", "inbox", "--json")

    new = json.loads(result.stdout)
    assert new["line"] == f"inbox read {digest_of(new['key'])}"
    assert result.stderr == ""


def test_key_new_makes_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """And prints the key alone on stdout."""
    file = tmp_path / "api_keys"

    result = run_command("key", "new", "inbox", "--file", str(file))

    key = result.stdout.strip()
    assert result.returncode == 0, result.stderr
    assert file.read_text() == f"inbox read {digest_of(key)}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "mode 0600" in result.stderr
    assert key not in result.stderr


def test_key_new_adds_the_line_break_that_the_last_line_lacks(tmp_path: Path) -> None:
    """Otherwise both lines would be spoilt. Mode, inode and other lines stay."""
    file = tmp_path / "api_keys"
    _, line = new_key("inbox", "read")
    file.write_text(f"# who may call\n{line}")
    file.chmod(0o640)
    inode = file.stat().st_ino

    result = run_command("key", "new", "ops", "--scopes", "admin", "--file", str(file))

    added = f"ops admin {digest_of(result.stdout.strip())}"
    assert file.read_text() == f"# who may call\n{line}\n{added}\n"
    assert (file.stat().st_mode & 0o777, file.stat().st_ino) == (0o640, inode)


def test_second_key_of_a_name_is_told(tmp_path: Path) -> None:
    """It is the way to rotate a key, or a mistake."""
    file = tmp_path / "api_keys"

    first, second = (
        run_command("key", "new", "inbox", "--file", str(file)) for _ in range(2)
    )

    assert "keys there now" not in first.stderr
    assert "inbox has 2 keys there now" in second.stderr
    assert len(read_keys(file.read_text())) == 2


@pytest.mark.parametrize(
    ("content", "said"), [(b"inbox read\n", "line 1"), (b"\xff\n", "UTF-8")]
)
def test_key_new_leaves_an_invalid_file_as_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """And prints no key, which would not work."""
    file = tmp_path / "api_keys"
    file.write_bytes(content)

    result = run_command("key", "new", "ops", "--file", str(file))

    assert result.returncode == 2
    assert str(file) in result.stderr and said in result.stderr
    assert result.stdout == ""
    assert file.read_bytes() == content


@pytest.mark.parametrize("path", ["/nonexistent/api_keys", "/"])
def test_file_that_cannot_be_written_is_named(path: str) -> None:
    """With the system's reason."""
    result = run_command("key", "new", "ops", "--file", path)

    assert result.returncode == 2
    assert result.stderr.startswith(f"{path}: ")
    assert result.stdout == ""


def test_line_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    """Half of it would spoil the file, and the service would not start again."""
    file = tmp_path / "api_keys"
    file.write_text(new_key("inbox", "read")[1] + "\n")
    before = file.read_text()
    room = len(before) + 10

    result = subprocess.run(
        [BIN / "profile-proxy", "key", "new", "bot", "--file", file],
        capture_output=True,
        text=True,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room, room)),
    )

    assert result.returncode == 2
    assert result.stderr == f"{file}: No space left on device\n"
    assert (result.stdout, file.read_text()) == ("", before)


def test_reader_finds_no_half_of_a_line(tmp_path: Path) -> None:
    """Several commands at once, and a reader who never pauses."""
    file = tmp_path / "api_keys"
    file.write_text(new_key("inbox", "read")[1])
    watched = WatchedFile(file, read_keys, time.monotonic)
    problems: set[str | None] = set()
    is_over = threading.Event()

    def read_again_and_again() -> None:
        while not is_over.is_set():
            watched.read_again()
            problems.add(watched.problem)

    reader = threading.Thread(target=read_again_and_again)
    reader.start()
    command = BIN / "profile-proxy", "key", "new", "ops", "--file", file
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    codes = [each.wait(60) for each in running]
    is_over.set()
    reader.join()
    watched.read_again()

    assert codes == [0] * 4
    assert problems == {None}
    assert len(watched.value()) == 5


def test_running_service_takes_the_new_key(guarded) -> None:
    """Within two seconds or so, without a restart."""
    before = guarded.file.read_text()
    made = run_command("key", "new", "bot", "--file", str(guarded.file))
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    ends_at = time.monotonic() + 10

    while guarded.service.get("/profiles/1", headers=headers).status_code == 401:
        assert time.monotonic() < ends_at
        time.sleep(0.1)

    guarded.file.write_text(before)


def test_key_list_tells_two_keys_of_one_name_apart(tmp_path: Path) -> None:
    """By the beginning of their digests, which are no secrets."""
    file = tmp_path / "api_keys"
    keys = [
        run_command("key", "new", "inbox", "--file", str(file)).stdout.strip()
        for _ in range(2)
    ]
    run_command("key", "new", "ops", "--scopes", "read,admin", "--file", str(file))

    rows = json.loads(run_command("key", "list", "--file", str(file), "--json").stdout)
    shown = run_command("key", "list", env={"PROXY_API_KEYS_FILE": str(file)})

    assert [row["digest"] for row in rows[:2]] == [digest_of(k)[:12] for k in keys]
    assert (rows[2]["name"], rows[2]["scopes"]) == ("ops", "read,admin")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines == [[row["name"], row["scopes"], row["digest"]] for row in rows]


@pytest.mark.parametrize("content", [None, "", "inbox read\n"])
def test_key_list_of_an_invalid_file_exits_with_2(
    tmp_path: Path, content: str | None
) -> None:
    """It names the file, and the line without its content."""
    file = tmp_path / "api_keys"
    if content is not None:
        file.write_text(content)

    result = run_command("key", "list", "--file", str(file))

    assert result.returncode == 2
    assert result.stderr.startswith(f"{file} ")


def test_key_list_without_a_file_is_misuse() -> None:
    """It names the option and the setting."""
    result = run_command("key", "list")

    assert result.returncode == 2
    assert "--file, or in PROXY_API_KEYS_FILE" in result.stderr
