"""Real Redis servers for the tests, each a child process of ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

REAL_STORES = ("embedded", "tcp", "unix", "tls")
STORES = ("fakeredis", *REAL_STORES)
"""Every kind of store there is; one is supported when it passes tests/stores."""

_BINARIES = ("redis-server", "valkey-server")
_STARTS_WITHIN = 10.0
_STOPS_WITHIN = 5.0
_ANSWERS_WITHIN = 0.25
_POLL_AFTER = 0.005
_TRIES = 5  # somebody may take the port between our look at it and the server's


def require(condition: object, what: str) -> None:
    """Skip a test that needs *what*; but fail it where REQUIRE_ALL=1, as in CI."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and REQUIRE_ALL=1 lets nothing be skipped")
    pytest.skip(f"{what} is missing")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def client_of(url: str, *, within: float = 5.0) -> redis.Redis:
    """Somebody else's client: it tries everything once, *within* so many seconds."""
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=within,
        socket_connect_timeout=within,
        protocol=2,
    )


class DidNotStart(Exception):
    """The server ended, or did not answer, when it was started; the text is its own."""


class Server:
    """A redis-server or valkey-server behind one door, which ends with its ``with``.

    *door* is ``tcp``, ``unix`` or ``tls``. It forgets everything when it is stopped,
    and keeps its URL when it is started again. *settings* are the server's own.
    """

    def __init__(
        self, door: str, *, password: str = "", settings: Mapping[str, str] = {}
    ) -> None:
        binaries = filter(None, map(shutil.which, _BINARIES))
        self._binary = next(binaries, None)
        require(self._binary, " or ".join(_BINARIES))
        self._door = door
        self._password = password
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="store-"))  # short, for the socket
        self._process: subprocess.Popen[bytes] | None = None
        if door == "tls":
            self._write_certificates()

    def __enter__(self) -> Self:
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is, as PROXY_STORE_URL would say it."""
        user = f":{self._password}@" if self._password else ""
        match self._door:
            case "unix":
                return f"unix://{user}{self._folder}/it.sock"
            case "tls":
                authority = f"ssl_ca_certs={self._folder}/ca.pem"
                return f"rediss://{user}localhost:{self._port}/0?{authority}"
            case _:
                return f"redis://{user}127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it at its old place, empty; it answers when this returns."""
        command = [str(self._binary)]
        for name, value in {**self._place(), **self._settings}.items():
            command += [f"--{name}", value]
        with open(self._folder / "log", "wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """End it; it has gone when this returns."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Make it hang: connections are still accepted, by the kernel."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it, and remove what it has left."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_on_a_free_port(self) -> None:
        for left in reversed(range(_TRIES)):
            self._port = free_port()
            try:
                return self.start()
            except DidNotStart as exc:
                if left == 0 or "Address already in use" not in str(exc):
                    raise

    def _place(self) -> dict[str, str]:
        place = {"port": "0", "bind": "127.0.0.1", "dir": str(self._folder)}
        place |= {"save": "", "appendonly": "no"}
        if self._password:
            place["requirepass"] = self._password
        match self._door:
            case "unix":
                place["unixsocket"] = str(self._folder / "it.sock")
            case "tls":
                place["tls-port"] = str(self._port)
                place["tls-cert-file"] = str(self._folder / "certificate.pem")
                place["tls-key-file"] = str(self._folder / "key.pem")
                place["tls-auth-clients"] = "no"
            case _:
                place["port"] = str(self._port)
        return place

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self._folder / "ca.pem")
        certificate.private_key_pem.write_to_path(self._folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(self._folder / "certificate.pem")

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _STARTS_WITHIN
        while not answers(self.url):
            assert self._process is not None
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                self.stop()
                said = (self._folder / "log").read_text(errors="replace")
                raise DidNotStart(said[-2000:])
            time.sleep(_POLL_AFTER)


def answers(url: str) -> bool:
    """Whether a server answers there now."""
    with suppress(redis.RedisError), client_of(url, within=_ANSWERS_WITHIN) as client:
        return bool(client.ping())
    return False
