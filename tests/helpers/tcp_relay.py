"""A TCP relay between a service and its store, which acts at a chosen command."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_READ_BYTES = 65536

Act = Callable[[], None]


class Relay:
    """Forwards bytes in both directions, on a port of its own.

    A client that waits for each answer sends each command in one piece, so the
    relay reads one command at a time on each connection.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._chosen: tuple[bytes, bytes, int, Act] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.acted = threading.Event()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing alone does not wake the thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def before(self, command: bytes, key: bytes, nth: int, act: Act) -> None:
        """Call *act* once, before forwarding the *nth* such command about *key*."""
        self.acted.clear()
        with self._lock:
            self._chosen = command, key, nth, act

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for ends in ((near, far, self._read_at), (far, near)):
                    threading.Thread(target=_pass, args=ends, daemon=True).start()

    def _read_at(self, piece: bytes) -> None:
        with self._lock:
            if self._chosen is None:
                return
            command, key, nth, act = self._chosen
            if command not in piece or key not in piece:
                return
            self._chosen = command, key, nth - 1, act
            if nth == 1:
                self._chosen = None
                act()
                self.acted.set()


def _pass(
    source: socket.socket,
    target: socket.socket,
    inspect: Callable[[bytes], None] = lambda piece: None,
) -> None:
    with suppress(OSError):
        while piece := source.recv(_READ_BYTES):
            inspect(piece)
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
