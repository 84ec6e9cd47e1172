"""How each contender is started: this service, what most teams write, and two caches.

All of them ask the same simulated Meta. Each is a context manager that gives a
`Contender` and ends only what it started.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.cache import engine

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
TOKEN = "EAABENCH"
FIELDS = (
    "name,username,profile_pic,is_verified_user,follower_count,"
    "is_user_follow_business,is_business_follow_user"
)

CORES = sorted(os.sched_getaffinity(0))
LOAD, SERVER = CORES[:1], CORES[-1:]
"""The core of the load and of Meta, and the core of who is measured, with its store."""

STARTS_WITHIN = 20.0
ENDS_WITHIN = 30.0


class Missing(Exception):
    """A contender is not installed here; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who answers ``GET /profiles/<igsid>`` on this machine."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Meta:
    """The simulated Meta, and what a row asks of it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold_back(self, igsids: Sequence[str], seconds: float) -> None:
        """Let every call about these people take so long."""
        for igsid in igsids:
            self._order("PUT", f"/_sim/people/{igsid}", {"delay": seconds})

    def calls(self, igsid: str | None = None) -> int:
        """How many calls have come, about one person or about all."""
        return self.wait_for(0, igsid)

    def wait_for(self, calls: int, igsid: str | None = None) -> int:
        """Wait, at most 10 s, until so many calls have come; how many have."""
        who = f"&igsid={igsid}" if igsid else ""
        seconds = 10 if calls else 0
        query = f"calls={max(1, calls)}&seconds={seconds}{who}"
        return int(self._order("GET", f"/_sim/await?{query}")["total"])

    def _order(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return dict(answer)


@contextmanager
def meta(cores: Sequence[int] = LOAD) -> Iterator[Meta]:
    """``python -m proxy.simulator``, which accepts only our token."""
    port = free_port()
    command = [sys.executable, "-m", "proxy.simulator"]
    command += [f"--listen=127.0.0.1:{port}", f"--token={TOKEN}"]
    with _child("meta", command, port, cores=cores):
        yield Meta(port)


@contextmanager
def store(cores: Sequence[int] = SERVER) -> Iterator[str]:
    """The embedded engine; its URL."""
    with pinned(cores):
        running = engine.start()
    with running:
        yield running.url


@contextmanager
def profile_proxy(
    upstream: Meta,
    store_url: str,
    *,
    workers: int = 1,
    cores: Sequence[int] = SERVER,
) -> Iterator[Contender]:
    """This service, as ``profile-proxy run`` starts it, with every default."""
    port = free_port()
    settings = {
        "PROXY_PAGE_TOKEN": TOKEN,
        "PROXY_GRAPH_URL": upstream.url,
        "PROXY_STORE_URL": store_url,
        "PROXY_LISTEN": f"127.0.0.1:{port}",
        "PROXY_WORKERS": str(workers),
    }
    command = [str(BIN / "profile-proxy"), "run"]
    with _child(
        "profile-proxy", command, port, cores=cores, listeners=workers, env=settings
    ) as contender:
        yield contender


@contextmanager
def memoize(
    upstream: Meta,
    store_url: str,
    *,
    workers: int = 1,
    cores: Sequence[int] = SERVER,
) -> Iterator[Contender]:
    """What most teams write (``usual.py``), on the same server as ours."""
    port = free_port()
    command = [str(BIN / "granian"), "--interface", "wsgi", "--port", str(port)]
    command += ["--workers", str(workers), "--blocking-threads", "512"]
    command += ["--backlog", "4096", "--backpressure", "4096", "usual:app"]
    with _usual("memoize", command, port, upstream, store_url, cores) as contender:
        yield contender


@contextmanager
def memoize_on_gunicorn(
    upstream: Meta,
    store_url: str,
    *,
    workers: int = 1,
    cores: Sequence[int] = SERVER,
) -> Iterator[Contender]:
    """The same on the server most teams take, with eight threads a process."""
    gunicorn = find("gunicorn", "pip install gunicorn")
    port = free_port()
    command = [gunicorn, "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
    command += ["--worker-class", "gthread", "--threads", "8", "usual:app"]
    name = "memoize on gunicorn"
    with _usual(name, command, port, upstream, store_url, cores) as contender:
        yield contender


@contextmanager
def varnish(upstream: Meta, *, cores: Sequence[int] = SERVER) -> Iterator[Contender]:
    """Varnish, all in memory, that keeps every profile for an hour."""
    binary = find("varnishd", "apt-get install --no-install-recommends varnish")
    port = free_port()
    with _folder() as folder:
        vcl = folder / "profiles.vcl"
        vcl.write_text(_VCL % (upstream.port, FIELDS, TOKEN))
        command = [binary, "-F", "-f", str(vcl), "-n", str(folder / "varnish")]
        command += ["-a", f"127.0.0.1:{port}", "-s", "malloc,256m"]
        command += ["-p", "listen_depth=4096"]
        command += ["-j", "none"] if os.geteuid() == 0 else []
        with _child("varnish", command, port, cores=cores) as contender:
            yield contender


@contextmanager
def nginx(
    upstream: Meta, *, workers: int = 1, cores: Sequence[int] = SERVER
) -> Iterator[Contender]:
    """nginx's ``proxy_cache`` in memory, one caller at a time for what it has not."""
    binary = find("nginx", "apt-get install --no-install-recommends nginx-light")
    port = free_port()
    with _folder() as folder:
        conf = folder / "nginx.conf"
        conf.write_text(
            _NGINX.format(
                folder=folder,
                user="user root;" if os.geteuid() == 0 else "",
                workers=workers,
                port=port,
                meta=upstream.port,
                fields=FIELDS,
                token=TOKEN,
            )
        )
        command = [binary, "-c", str(conf), "-e", str(folder / "error.log")]
        with _child("nginx", command, port, cores=cores) as contender:
            yield contender


_VCL = """\
vcl 4.1;
backend meta { .host = "127.0.0.1"; .port = "%d"; }
sub vcl_recv { return (hash); }
sub vcl_backend_fetch {
  set bereq.url = regsub(bereq.url, "^/profiles/", "/v25.0/") + "?fields=%s";
  set bereq.http.Authorization = "Bearer %s";
}
sub vcl_backend_response {
  unset beresp.http.Vary;
  set beresp.ttl = 1h;
  # Not the built-in one, which heeds Meta's no-store.
  return (deliver);
}
"""

_NGINX = """\
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=profiles:64m use_temp_path=off;
  upstream meta {{ server 127.0.0.1:{meta}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/profiles/([0-9]+)$ {{
      proxy_pass http://meta/v25.0/$1?fields={fields};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {token}";
      proxy_ignore_headers Cache-Control Expires Vary Set-Cookie;
      proxy_cache profiles;
      proxy_cache_key $uri;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
    }}
  }}
}}
"""


@contextmanager
def _usual(
    name: str,
    command: list[str],
    port: int,
    upstream: Meta,
    store_url: str,
    cores: Sequence[int],
) -> Iterator[Contender]:
    env = {"STORE_URL": store_url, "GRAPH_URL": upstream.url, "PYTHONPATH": str(HERE)}
    with _child(name, command, port, cores=cores, env=env) as contender:
        yield contender


@contextmanager
def _child(
    name: str,
    command: list[str],
    port: int,
    *,
    cores: Sequence[int],
    listeners: int = 1,
    env: dict[str, str] | None = None,
) -> Iterator[Contender]:
    """*command* on *cores*, listening when this gives it, ended by its pid after."""
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
                said = errors.read()[-2000:].decode(errors="replace")
                raise SystemExit(f"{name} does not listen; it said: {said}")
            yield Contender(name, port, started)
        finally:
            _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    if started.poll() is not None:
        return
    started.send_signal(signal.SIGTERM)
    try:
        started.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def _listens(started: subprocess.Popen[bytes], port: int, listeners: int) -> bool:
    """Wait until every worker has its listener at *port*."""
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and started.poll() is None:
        if _count_listeners(port) >= listeners:
            return True
        time.sleep(0.02)
    return False


def _count_listeners(port: int) -> int:
    """Source: https://docs.kernel.org/networking/proc_net_tcp.html (0A is LISTEN)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Be on *cores* for a while, and whoever is started meanwhile for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory, if there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="profile-proxy-bench-", dir=memory if memory.is_dir() else None
    ) as name:
        yield Path(name)


def find(program: str, how_to_get_it: str) -> str:
    places = os.pathsep.join([str(BIN), os.environ.get("PATH", ""), "/usr/sbin"])
    if found := shutil.which(program, path=places):
        return found
    raise Missing(f"not installed ({how_to_get_it})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
