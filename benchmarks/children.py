"""Start and end the measured processes, on chosen cores.

Each context manager ends only the process that it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent

# Without this call nothing can be measured, but the tests import this module.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
LOAD, SERVER = CORES[:1], CORES[-1:]
"""The core of the load and of Meta, and the core of the contender and its store."""

STARTS_WITHIN = 20.0
ENDS_WITHIN = 30.0
DRAINS_FOR = 0.5
"""Seconds of draining before a second SIGTERM, because no client calls it any more."""


class Missing(Exception):
    """A program is not installed. The text says how to get it."""


class Failed(Exception):
    """A check failed, so the row has no figures."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A process that answers ``GET /profiles/<igsid>`` on this machine."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def child(
    name: str,
    command: list[str],
    port: int,
    *,
    cores: Sequence[int],
    listeners: int = 1,
    env: dict[str, str] | None = None,
) -> Iterator[Contender]:
    """Run *command* on *cores*; yield it once it listens, and end it by its pid."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    with tempfile.TemporaryFile() as errors:
        with pinned(cores):
            started = subprocess.Popen(
                command,
                env=inherited | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        try:
            if not _listens(started, port, listeners):
                errors.seek(0)
                log = errors.read()[-2000:].decode(errors="replace")
                raise Failed(f"{name} does not listen; its output: {log}")
            yield Contender(name, port, started)
        finally:
            _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    for within in (DRAINS_FOR, ENDS_WITHIN):
        if started.poll() is not None:
            return
        started.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(within)
            return
    started.kill()
    started.wait()


def _listens(started: subprocess.Popen[bytes], port: int, listeners: int) -> bool:
    """Wait until every worker listens at *port*."""
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and started.poll() is None:
        if _count_listeners(port) >= listeners:
            return True
        time.sleep(0.02)
    return False


def _count_listeners(port: int) -> int:
    """Count the listeners at *port*.

    Source: https://docs.kernel.org/networking/proc_net_tcp.html (0A is LISTEN)
    """
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin this thread to *cores* for a while, and new processes for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def folder() -> Iterator[Path]:
    """Create a folder, in memory if possible, and remove it afterwards."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="profile-proxy-bench-", dir=memory if memory.is_dir() else None
    ) as name:
        yield Path(name)


def find(program: str, how_to_get_it: str) -> str:
    """Return the path of *program*.

    Raises:
        Missing: it is not installed.
    """
    folders = os.pathsep.join([str(BIN), os.environ.get("PATH", ""), "/usr/sbin"])
    if found := shutil.which(program, path=folders):
        return found
    raise Missing(f"not installed ({how_to_get_it})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
