"""What granian does not do for speed by itself, and may be had to do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flask import Flask
from granian.server import mp

from proxy.fast_path.middleware import FastPathMiddleware

SERVER_LOOKED_FOR_EVERY = 0.1
"""Seconds after which we look again whether granian is up."""

NETWORK_NICENESS = -10
"""Of the thread that reads and writes sockets."""

THREADS_LOOKED_AT_EVERY = 0.1
"""Seconds for which a new thread may be as nice as the network's."""


def ask_fast_path_before_wsgi() -> None:
    """Have the granian of this process ask for hits before it makes WSGI of a request.

    WSGI costs a hit a fourteenth: nine words that each environ has, a callable that
    takes status and headers, a status that is written to be read again. What tells
    one request from another is there without it.

    There is no way in but a name that is granian's own (see the tests of this).
    """
    mp._wsgi_call_wrap = fast_path_first(mp._wsgi_call_wrap)  # type: ignore[attr-defined]


def fast_path_first(make_wsgi: Callable[..., Any]) -> Callable[..., Any]:
    """In place of *make_wsgi*, which makes what granian calls of an app and options."""

    def make(app: Flask, *options: Any) -> Callable[[Any, dict[str, Any]], int]:
        front = app.wsgi_app
        assert isinstance(front, FastPathMiddleware)
        ask_app = make_wsgi(front.app, *options)

        def answer(protocol: Any, environ: dict[str, Any]) -> int:
            answered = front.fast_path(environ)
            if answered is None:
                return int(ask_app(protocol, environ))
            protocol.response_bytes(*answered)
            return answered[0]

        return answer

    return make


def prioritize_network_thread(inherited: object) -> None:
    """Have the thread that reads and writes sockets go before those that run Python.

    It takes what has come in one go then, and who answers from a copy is not stopped
    halfway, with the lock in hand that all Python needs: an eighth less CPU for a
    hit. Where each hit is a trip to the store it would be a fifth more: they take
    long enough for it to come between them every time. Where the system does not
    permit it (RLIMIT_NICE in getrlimit(2)), it is as good as the others.

    Those that run Python are made by it and begin as it is, to be made as all are
    here. Made as all are at once, they could not begin while there is something to
    read, of which each piece has granian make another: a crowd of 64 has made 390.

    Waits until granian is up, whose handler of SIGTERM is not the *inherited* one.
    """
    while signal.getsignal(signal.SIGTERM) is inherited:
        time.sleep(SERVER_LOOKED_FOR_EVERY)
    network = _network_thread()
    if network is None:
        return
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if not NETWORK_NICENESS < usual <= 0:
        return  # All go before whatever else there is, or are wished to go after it.
    try:
        os.setpriority(os.PRIO_PROCESS, network, NETWORK_NICENESS)
    except OSError:
        return
    seen = {network}
    while True:
        with suppress(OSError):  # So many connections that no file can be opened.
            there = set(map(int, os.listdir("/proc/self/task")))
            for thread in there - seen:
                with suppress(OSError):  # It has ended.
                    os.setpriority(os.PRIO_PROCESS, thread, usual)
            seen = there
        time.sleep(THREADS_LOOKED_AT_EVERY)


def _network_thread() -> int | None:
    """The thread of granian's runtime, whose name those have too that it makes."""
    threads = []
    for stat in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            started_at = int(rest.split()[19])
            if name.partition("(")[2] == "tokio-rt-worker":
                threads.append((started_at, int(stat.parent.name)))
    return min(threads)[1] if threads else None
