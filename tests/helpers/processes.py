"""Real processes for the tests: the service, the simulated Meta, and callers."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
import requests

BIN = Path(sys.executable).parent
SKEWED = Path(__file__).parent / "skewed_service.py"
NEAR_ENTRIES = "profile_proxy_near_entries "
PAGE_TOKEN = "EAACANARYPAGETOKEN0123456789"
APP_SECRET = "canaryappsecret0123456789abcdef0"
VERIFY_TOKEN = "canaryverifytoken0123456789"
WEBHOOK_SECRET = "canarywebhooksecret0123456789abc"

ADA = "1254001000000001"
BEN = "1254001000000002"
CLEO = "1254001000000003"
DOV = "1254001000000004"
EVE = "1254001000000005"
FINN = "1254001000000006"
GUS = "1254001000000007"
HANA = "1254001000000008"
IVO = "1254001000000009"
JO = "1254001000000010"
KIM = "1254001000000011"
LEV = "1254001000000012"
MIA = "1254001000000013"


def crowd(number: int) -> str:
    """Return the id of one of the simulator's many consenting people."""
    return f"1254002{number:09d}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(done: Callable[[], bool], within: float, what: str) -> None:
    """Poll *done* until it holds, or fail; for states that send no event."""
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.01)


class SimulatedMeta:
    """``python -m proxy.simulator`` as a child process, which ends with this one."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "proxy.simulator",
                "--exit-with-stdin",
                "--listen=127.0.0.1:0",
                f"--token={PAGE_TOKEN}",
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.url: str = json.loads(self._process.stdout.readline())["url"]
        self._session = requests.Session()
        self._session.trust_env = False

    def person(self, igsid: str, **script: Any) -> None:
        """Script Meta's replies about *igsid*."""
        self._order("PUT", f"/_sim/people/{igsid}", script)

    def order(self, what: str, **body: Any) -> None:
        """Send ``throttle``, ``token``, ``usage``, ``release`` or ``reset``."""
        self._order("POST", f"/_sim/{what}", body)

    def calls(self, igsid: str | None = None) -> int:
        query = {"igsid": igsid} if igsid else {}
        return int(self._read("calls", **query)["total"])

    def overview(self) -> dict[str, Any]:
        return self._read("calls")

    def await_calls(self, igsid: str, calls: int = 1, seconds: float = 10) -> None:
        """Wait until *calls* calls about *igsid* have arrived."""
        self._read("await", igsid=igsid, calls=calls, seconds=seconds)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(5)
        self._process.stdout.close()

    def _order(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = self._session.request(method, self.url + path, json=body, timeout=40)
        assert answer.ok, answer.text

    def _read(self, what: str, **query: Any) -> dict[str, Any]:
        answer = self._session.get(f"{self.url}/_sim/{what}", params=query, timeout=40)
        assert answer.ok, f"{what} {query}: {answer.status_code} {answer.text}"
        return dict(answer.json())


class Service:
    """``profile-proxy run`` as a child process, ready for requests.

    With *clock_ahead*, in seconds, a small server of the same app with that clock.
    """

    def __init__(
        self, ready: bool = True, clock_ahead: float = 0.0, **settings: str
    ) -> None:
        self.port = free_port()
        command = [str(BIN / "profile-proxy"), "run"]
        if clock_ahead:
            command = [sys.executable, str(SKEWED), str(self.port), str(clock_ahead)]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.NamedTemporaryFile("wb", suffix=".log")
        env = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
        env["PROXY_LISTEN"] = f"127.0.0.1:{self.port}"
        env["PROXY_DRAIN_FOR"] = "0s"  # A test of draining sets its own.
        env |= {f"PROXY_{name}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._sessions = threading.local()
        if ready:
            wait_until(self._is_up, 15, "the service answers")

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.request("GET", path, **kwargs)

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()
            self._sessions.session.trust_env = False
        kwargs.setdefault("timeout", 30)
        answer: requests.Response = self._sessions.session.request(
            method, self.url + path, **kwargs
        )
        return answer

    def flush(self, **order: Any) -> dict[str, Any]:
        answer = self.request("POST", "/admin/flush", json={"what": "all"} | order)
        assert answer.ok, answer.text
        return dict(answer.json())

    def near_entries(self) -> float:
        """Return the number of entries in the near caches of its processes."""
        lines = self.get("/metrics").text.splitlines()
        [line] = [each for each in lines if each.startswith(NEAR_ENTRIES)]
        return float(line.removeprefix(NEAR_ENTRIES))

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children]

    def stop(self) -> None:
        """End it as an operator does. If it does not end, kill it and fail."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise
        self._log.close()

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/healthz", timeout=1).ok
        except requests.ConnectionError:
            return False


def empty_store(store: redis.Redis, *services: Service) -> None:
    """Empty the store, and wait until the near caches of *services* are empty."""
    store.flushdb()
    for service in services:
        wait_until(
            lambda each=service: each.near_entries() == 0, 5, "the near cache is empty"
        )


def new_key(name: str, scopes: str) -> tuple[str, str]:
    """Return an API key and its line, from ``profile-proxy key new``."""
    made = subprocess.run(
        [BIN / "profile-proxy", "key", "new", name, "--scopes", scopes, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    new = json.loads(made.stdout)
    return new["key"], new["line"]


def a_webhook(*senders: str) -> bytes:
    """Return Meta's webhook about a message from each of *senders*."""
    events = [{"sender": {"id": sender}, "message": {"mid": "m"}} for sender in senders]
    entry = {"time": 1, "id": "17841400000000000", "messaging": events}
    return json.dumps({"object": "instagram", "entry": [entry]}).encode()


def post_webhook(
    service: Service, body: bytes, secret: str = WEBHOOK_SECRET, **how: Any
) -> requests.Response:
    """Send *body* as Meta does, signed with *secret*."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={digest}"}
    return service.request(
        "POST", "/webhooks/instagram", data=body, headers=headers, **how
    )


def open_gates(store: redis.Redis) -> None:
    """Open all gates, by deleting them from the store."""
    for key in store.scan_iter("pp:g:*"):
        store.delete(key)


def all_at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Run *jobs* in parallel, each in its own thread, all started together."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        start.wait(30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))
