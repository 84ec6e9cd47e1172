"""The process that owns the workers: granian's parent, and what ends with it."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from functools import partial
from typing import Any

from flask import Flask
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from proxy.app import create_app
from proxy.logs import JsonLines, write_to_stderr
from proxy.settings import PREFIX, Address, Settings, SettingsError

CONNECTIONS = 4096
"""Connections that a worker holds at once; more wait in the system's queue."""

HEADER_TIMEOUT = 10.0
"""Seconds that a client may take over the head of a request."""

PARENT_LOOKED_AT_EVERY = 1.0
"""Seconds after which a worker notices that its parent was killed."""

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

    Raises:
        SettingsError: a file that the settings name is no good, or something else
            listens at this address already.
    """
    create_app(settings)  # Here, where it can be told; a worker could only die of it.
    check_free(settings.listen)
    server = Server(
        "proxy",
        address=settings.listen.host,
        port=settings.listen.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backpressure=CONNECTIONS,
        backlog=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=int(HEADER_TIMEOUT * 1000)),
        respawn_failed_workers=True,
        workers_kill_timeout=math.ceil(2 * settings.graph_timeout + 5),
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    )
    loader = partial(load_app, settings, os.getpid())
    server.serve(target_loader=loader, wrap_loader=False)


def load_app(settings: Settings, parent: int) -> Flask:
    """Build the app in a worker, which ends when its *parent* does."""
    # Granian puts the environment into every request's; secrets need not be there.
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    write_to_stderr(settings.log_level)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return create_app(settings)


def check_free(address: Address) -> None:
    """Make sure that nobody listens at *address*.

    Workers share their port (SO_REUSEPORT), and a second service of ours would
    share it with them: half of the requests would go to each.

    Raises:
        SettingsError: somebody does, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as exc:
            raise SettingsError(
                [f"PROXY_LISTEN={address} cannot be used: {exc.strerror}"]
            ) from None


def _end_with(parent: int) -> None:
    """Stop this worker when *parent* is gone, which a SIGKILL does not announce."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOKED_AT_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
