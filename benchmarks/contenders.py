"""Start the contenders: this service, what most teams write, and two caches.

All of them ask the same simulated Meta. Each is a context manager that yields a
`Contender` and ends only what it started.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import (
    BIN,
    LOAD,
    SERVER,
    Contender,
    child,
    find,
    folder,
    free_port,
    pinned,
)
from benchmarks.load import KEY_LINE
from proxy.embedded import engine

HERE = Path(__file__).parent
TOKEN = "EAABENCH"
FIELDS = (
    "name,username,profile_pic,is_verified_user,follower_count,"
    "is_user_follow_business,is_business_follow_user"
)

APT = "apt-get install --no-install-recommends"
"""The command that installs a missing program on Debian."""

ROOM_BYTES = 1024**3
"""A store's limit: the same as Varnish's, and enough for all rows but one."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The simulated Meta, and its commands for a row."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def delay(self, igsids: Sequence[str], seconds: float) -> None:
        """Let every call about these people take *seconds*."""
        for igsid in igsids:
            self._order("PUT", f"/_sim/people/{igsid}", {"delay": seconds})

    def refuse(self, igsids: Sequence[str], code: int) -> None:
        """Let every call about these people end in Meta's error *code*."""
        for igsid in igsids:
            self._order("PUT", f"/_sim/people/{igsid}", {"error": {"code": code}})

    def calls(self, igsid: str | None = None) -> int:
        """Return the number of calls received, about one person or about all."""
        return self.wait_for(0, igsid)

    def wait_for(self, calls: int, igsid: str | None = None) -> int:
        """Wait at most 10 s for that many *calls*; return the number received."""
        person = f"&igsid={igsid}" if igsid else ""
        seconds = 10 if calls else 0
        query = f"calls={max(1, calls)}&seconds={seconds}{person}"
        return int(self._order("GET", f"/_sim/await?{query}")["total"])

    def _order(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return dict(answer)


@contextmanager
def meta(cores: Sequence[int] = LOAD) -> Iterator[Meta]:
    """Run ``python -m proxy.simulator``, which accepts only our token."""
    port = free_port()
    command = [sys.executable, "-m", "proxy.simulator"]
    command += [f"--listen=127.0.0.1:{port}", f"--token={TOKEN}"]
    with child("meta", command, port, cores=cores):
        yield Meta(port)


@contextmanager
def store(
    cores: Sequence[int] = SERVER,
    *,
    binary: Path | None = None,
    room_bytes: int = ROOM_BYTES,
) -> Iterator[str]:
    """Run the embedded engine, or the server *binary*, and yield its URL."""
    with pinned(cores):
        running = engine.start(binary=binary, maxmemory_bytes=room_bytes)
    with running:
        yield running.url


@contextmanager
def profile_proxy(
    upstream: Meta,
    store_url: str,
    *,
    name: str = "profile-proxy",
    workers: int = 1,
    cores: Sequence[int] = SERVER,
    near_entries: int | None = None,
) -> Iterator[Contender]:
    """Run this service by ``profile-proxy run``, with a file of API keys.

    Every other setting has its default, except that the one key may cause all
    misses of a row.
    """
    port = free_port()
    with folder() as private:
        keys = private / "keys"
        keys.write_text(KEY_LINE)
        settings = {
            "PROXY_PAGE_TOKEN": TOKEN,
            "PROXY_GRAPH_URL": upstream.url,
            "PROXY_STORE_URL": store_url,
            "PROXY_LISTEN": f"127.0.0.1:{port}",
            "PROXY_WORKERS": str(workers),
            "PROXY_API_KEYS_FILE": str(keys),
            "PROXY_MISSES_PER_MINUTE": "1000000",
        }
        if near_entries is not None:
            settings["PROXY_NEAR_ENTRIES"] = str(near_entries)
        command = [str(BIN / "profile-proxy"), "run"]
        with child(
            name, command, port, cores=cores, listeners=workers, env=settings
        ) as contender:
            yield contender


@contextmanager
def memoize(
    upstream: Meta, store_url: str, *, workers: int, cores: Sequence[int]
) -> Iterator[Contender]:
    """Run what most teams write (``usual.py``), on the same server as ours."""
    port = free_port()
    command = [str(BIN / "granian"), "--interface", "wsgi", "--port", str(port)]
    command += ["--workers", str(workers), "--blocking-threads", "512"]
    command += ["--backlog", "4096", "--backpressure", "4096"]
    command += ["--factory", "usual:memoize"]
    with child(
        "memoize", command, port, cores=cores, env=_usual(upstream, store_url)
    ) as contender:
        yield contender


@contextmanager
def on_gunicorn(
    app: str, name: str, upstream: Meta, store_url: str
) -> Iterator[Contender]:
    """Run *app* of ``usual.py`` on gunicorn, as most teams do, with 8 threads."""
    gunicorn = find("gunicorn", "pip install gunicorn")
    port = free_port()
    command = [gunicorn, "--bind", f"127.0.0.1:{port}", "--backlog", "4096"]
    command += ["--worker-class", "gthread", "--threads", "8"]
    command += ["--worker-connections", "2000", "--no-control-socket"]
    command += [f"usual:{app}()"]
    with child(
        name, command, port, cores=SERVER, env=_usual(upstream, store_url)
    ) as contender:
        yield contender


def _usual(upstream: Meta, store_url: str) -> dict[str, str]:
    return {
        "STORE_URL": store_url,
        "GRAPH_URL": upstream.url,
        "GRAPH_TOKEN": TOKEN,
        "GRAPH_FIELDS": FIELDS,
        "PYTHONPATH": str(HERE),
    }


@contextmanager
def varnish(upstream: Meta, *, cores: Sequence[int] = SERVER) -> Iterator[Contender]:
    """Run Varnish in memory, with a TTL of an hour."""
    binary = find("varnishd", f"{APT} varnish")
    port = free_port()
    with folder() as private:
        vcl = private / "profiles.vcl"
        vcl.write_text(_VCL % (upstream.port, FIELDS, TOKEN))
        command = [binary, "-F", "-f", str(vcl), "-n", str(private / "varnish")]
        command += ["-a", f"127.0.0.1:{port}", "-s", f"malloc,{ROOM_BYTES}"]
        command += ["-p", "listen_depth=4096", "-p", "thread_pool_max=1000"]
        command += ["-j", "none"] if os.geteuid() == 0 else []
        with child("varnish", command, port, cores=cores) as contender:
            yield contender


@contextmanager
def nginx(
    upstream: Meta,
    *,
    name: str = "nginx",
    workers: int = 1,
    cores: Sequence[int] = SERVER,
    open_file_cache: bool = False,
) -> Iterator[Contender]:
    """Run nginx's ``proxy_cache`` in memory, with one call at a time for a miss."""
    binary = find("nginx", f"{APT} nginx-light")
    port = free_port()
    with folder() as private:
        conf = private / "nginx.conf"
        conf.write_text(
            _NGINX.format(
                folder=private,
                user="user root;" if os.geteuid() == 0 else "",
                workers=workers,
                port=port,
                meta=upstream.port,
                fields=FIELDS,
                token=TOKEN,
                open_files="max=20000 inactive=5m" if open_file_cache else "off",
            )
        )
        command = [binary, "-c", str(conf), "-e", str(private / "error.log")]
        with child(name, command, port, cores=cores) as contender:
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
  # Not the built-in subroutine, which obeys Meta's no-store.
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
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 75;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=profiles:64m
    max_size=2g inactive=2h use_temp_path=off;
  open_file_cache {open_files};
  open_file_cache_valid 5m;
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
