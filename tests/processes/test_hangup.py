"""SIGHUP reads the files again; only a terminal that is gone stops the service."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.helpers.processes import (
    ADA,
    BIN,
    PAGE_TOKEN,
    Service,
    free_port,
    new_key,
    wait_until,
)

READ_AGAIN = "files read again"

IGNORING = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
"""What ``nohup`` does before it becomes the command."""

PROXY = str(BIN / "profile-proxy")


@pytest.fixture(params=["no near cache"], scope="module")
def running(running):
    return running


@contextmanager
def started(
    log: Path, *command: str, **how: Any
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], list[dict[str, Any]]]]]:
    """Start *command*, which serves; yields it and a function that reads its log."""
    port = free_port()
    settings: dict[str, str] = how.pop("settings", {})
    env = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    env |= {"PROXY_LISTEN": f"127.0.0.1:{port}", "PROXY_DRAIN_FOR": "0s"}
    env |= {f"PROXY_{name}": value for name, value in settings.items()}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=env, stderr=stderr, stdout=subprocess.DEVNULL, **how
        )

    def is_up() -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=1).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(is_up, 15, "it answers")
        yield process, lambda: [json.loads(x) for x in log.read_text().splitlines()]
        if process.poll() is None:
            assert is_up()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture
def settings(stack, tmp_path) -> dict[str, str]:
    """The settings of a service whose token is in a file."""
    token = tmp_path / "token"
    token.write_text(PAGE_TOKEN)
    values = dict(stack.settings, PAGE_TOKEN_FILE=str(token))
    del values["PAGE_TOKEN"]
    return values


def messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in lines]


def test_sighup_reads_the_files_again_in_all_workers(settings, tmp_path) -> None:
    """Within a tenth of a second, where it would take up to two."""
    keys = tmp_path / "keys"
    key, line = new_key("first", "read")
    keys.write_text(f"{line}\n")
    with closing(
        Running(settings | {"API_KEYS_FILE": str(keys), "WORKERS": "2"})
    ) as it:
        assert it.statuses(key) == {200}
        for n in range(2):
            key, line = new_key(f"next{n}", "read")
            keys.write_text(f"{line}\n")
            it.hang_up()
            time.sleep(0.7)
            assert it.statuses(key) == {200}
        keys.write_text("not a line\n")
        it.hang_up()
        it.await_read(3)
        assert it.statuses(key) == {200}
        lines = it.read()

    assert [line["invalid"] for line in lines] == [[], [], ["api_keys_file_bad"]]
    assert [line["level"] for line in lines] == ["info", "info", "error"]


class Running:
    """A service that is sent SIGHUP."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._service = Service(**settings)
        self._pids = self._service.workers()

    def close(self) -> None:
        assert self._service.workers() == self._pids
        self._service.stop()

    def hang_up(self) -> None:
        """As systemd, which may send it to all processes."""
        os.killpg(self._service.process.pid, signal.SIGHUP)

    def statuses(self, key: str) -> set[int]:
        """Return the statuses of many requests, each over its own connection."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self._service.url}/profiles/{ADA}"
        return {
            requests.get(url, headers=headers, timeout=5).status_code for _ in range(20)
        }

    def read(self) -> list[dict[str, Any]]:
        lines = map(json.loads, self._service.log().splitlines())
        return [line for line in lines if line["message"] == READ_AGAIN]

    def await_read(self, times: int) -> None:
        wait_until(lambda: len(self.read()) >= times, 5, READ_AGAIN)


def test_sighup_stays_ignored_under_nohup(settings, tmp_path) -> None:
    code = f"{IGNORING} os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", code, PROXY, "run"]
    with started(tmp_path / "log", *command, settings=settings) as (process, log):
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP ignored" in str(messages(log())), 5, "a line")

        assert READ_AGAIN not in messages(log())


def test_demo_serves_on_after_sighup(tmp_path) -> None:
    """And has named the settings that it ignores, without their values."""
    ignored = {"LOG_LEVEL": "debug", "APP_SECRET": "hunter2"}
    with started(
        tmp_path / "log", PROXY, "demo", settings=ignored, start_new_session=True
    ) as (process, _):
        printed = (tmp_path / "log").read_text()
        names = "PROXY_APP_SECRET, PROXY_DRAIN_FOR, PROXY_LOG_LEVEL"
        assert f"no setting but PROXY_LISTEN. Ignored: {names}\n" in printed
        assert "hunter2" not in printed
        os.killpg(process.pid, signal.SIGHUP)
        time.sleep(0.5)

        assert process.poll() is None


@pytest.mark.parametrize("command", ["run", "demo"])
def test_service_ends_with_its_terminal_and_not_before(
    settings, tmp_path, command
) -> None:
    terminal, ours = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(ours, termios.TIOCSCTTY, 0)

    with started(
        tmp_path / "log",
        PROXY,
        command,
        settings=settings if command == "run" else {},
        stdin=ours,
        start_new_session=True,
        preexec_fn=take_terminal,
    ) as (process, _):
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        time.sleep(1.5)
        assert process.poll() is None

        os.close(terminal)

        assert process.wait(10) == 0
