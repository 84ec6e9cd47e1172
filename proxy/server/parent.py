"""The process that owns the workers: granian's parent, and what ends with it."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from proxy.app import BEGIN, PAGES, create_app
from proxy.config.settings import Address, Settings, SettingsError, usable_cores
from proxy.domain.failures import StoreUnavailable
from proxy.logs import JsonLines, write_to_stderr
from proxy.observability.metrics import share
from proxy.server.granian_hook import (
    ask_fast_path_before_wsgi,
    prioritize_network_thread,
)
from proxy.server.syn_filter import drop_new_connections
from proxy.storage.client_factory import masked

CONNECTIONS = 4096
"""Connections that a worker holds at once; more wait in the system's queue."""

HEADER_TIMEOUT = 10.0
"""Seconds that a client may take over the head of a request, or stay idle."""

PARENT_LOOKED_AT_EVERY = 0.1
"""Seconds after which a worker notices that its parent stops, or was killed."""

READ_LATER = (
    *("PYTHON", "SSL_CERT_", "TZ", "LANG", "LC_", "MALLOC_", "LD_"),
    *("RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES"),
)
"""What in the environment of a worker some library may look at while it serves."""

LAST_WORD_WITHIN = 0.2
"""Seconds in which a caller who has just connected must begin to ask."""

THREADS_STAY_FOR = 60
"""Seconds that a thread without work waits for some before it ends."""

IN_MEMORY = "/dev/shm"
"""Where the system keeps files in memory."""

log = logging.getLogger(__name__)

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}


class Phase(IntEnum):
    """Where the service is in its life; only its parent moves it on."""

    SERVING = 0
    DRAINING = 1
    STOPPING = 2


class SharedPhase:
    """The phase, in memory that the parent shares with all workers, later ones too."""

    def __init__(self) -> None:
        self._memory = multiprocessing.RawValue("b", Phase.SERVING)

    def __call__(self) -> Phase:
        return Phase(self._memory.value)

    def move_on_to(self, phase: Phase) -> None:
        self._memory.value = phase

    def is_ending(self) -> bool:
        """Whether callers should go elsewhere: the service drains, or stops."""
        return bool(self._memory.value)


class DrainingServer(MPServer):
    """Granian's parent, which drains for *drain_for* seconds before it stops.

    It also drains when granian gives up a worker that dies again and again, for
    the sake of those that live.
    """

    def __init__(self, phase: SharedPhase, drain_for: float, **options: Any) -> None:
        super().__init__("proxy", **options)
        self._phase = phase
        self._drain_for = drain_for
        self._hangup = signal.getsignal(signal.SIGHUP)

    # MPServer's own has other parameters than its parent's.
    def _spawn_worker(  # type: ignore[override]
        self, idx: int, target: Any, callback_loader: Callable[..., Any]
    ) -> WorkerProcess:
        """Tell the worker its number, which it has from whom it replaces."""
        return super()._spawn_worker(idx, target, partial(callback_loader, idx))

    def signal_handler_reload(self, *_: Any, **__: Any) -> None:
        """SIGHUP says that the terminal is gone: end, unless nohup says to stay.

        New workers, which granian would make, would have the same settings.
        """
        if self._hangup is not signal.SIG_IGN:
            self.signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def shutdown(self, exit_code: int = 0) -> None:
        """Drain, and then stop the workers, which finish what is in flight."""
        log.info("draining", extra={"seconds": self._drain_for})
        self._phase.move_on_to(Phase.DRAINING)
        self._wait_for_drain()
        log.info("stopping")
        self._phase.move_on_to(Phase.STOPPING)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # it has no types

    def _wait_for_drain(self) -> None:
        """Until time is up, nobody is left to drain, or a second signal says so."""
        ends_at = time.monotonic() + self._drain_for
        self.interrupt_signal = False
        while multiprocessing.active_children():
            left = ends_at - time.monotonic()
            if self.interrupt_signal or left <= 0:
                return
            self.main_loop_interrupt.clear()
            self.main_loop_interrupt.wait(left)


def serve(settings: Settings, announce: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT, drain, finish what is in flight and return.

    *announce* is called when all that could be wrong with the settings is not.

    Raises:
        SettingsError: a file that the settings name is no good, or something else
            listens at this address already.
        SystemExit: with 1, because a worker died again as soon as it was replaced.
    """
    create_app(settings)  # Here, where it can be told; a worker could only die of it.
    check_free(settings.listen)
    announce()
    log.info(
        "serving",
        extra={
            "listen": str(settings.listen),
            "store": masked(settings.store_url),
            "graph": f"{settings.graph_url}/{settings.graph_version}",
            "workers": settings.workers,
        },
    )
    phase = SharedPhase()
    server = new_server(settings, phase)
    cores = cores_of_workers(settings.workers, _affinity(), usable_cores())
    with TemporaryDirectory(
        prefix="profile-proxy-",
        dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None,
        ignore_cleanup_errors=True,
    ) as counts:
        loader = partial(load_app, settings, phase, os.getpid(), counts, cores)
        server.serve(target_loader=loader, wrap_loader=False)


def new_server(settings: Settings, phase: SharedPhase) -> DrainingServer:
    """Granian's parent, as the *settings* want it; it does not serve yet."""
    return DrainingServer(
        phase,
        settings.drain_for,
        address=settings.listen.host,
        port=settings.listen.port,
        interface=Interfaces.WSGI,
        # Left to find out which HTTP it is, hyper waits for ever for a first byte.
        http=HTTPModes.http1,
        workers=settings.workers,
        runtime_threads=1,
        blocking_threads=settings.threads,
        blocking_threads_idle_timeout=THREADS_STAY_FOR,
        backpressure=CONNECTIONS,
        backlog=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=int(HEADER_TIMEOUT * 1000)),
        respawn_failed_workers=True,
        workers_kill_timeout=math.ceil(2 * settings.graph_timeout + 5),
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    )


def cores_of_workers(workers: int, affinity: Collection[int], usable: int) -> list[int]:
    """Which core each of so many *workers* stays on; none, if they may move.

    Each has one where there are as many as cores that we may run on: a process of
    many threads that spreads over several cores is slower than on one. Fewer
    workers could be given a core that is busy beside an idle one. With a quota of
    fewer *usable* cores than are in our *affinity*, each container on a machine
    would choose the same ones.
    """
    return sorted(affinity) if workers == len(affinity) == usable else []


def _affinity() -> Collection[int]:
    """The cores we may run on; none where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()


def load_app(
    settings: Settings,
    phase: SharedPhase,
    parent: int,
    counts: str,
    cores: Sequence[int],
    number: int,
) -> Flask:
    """Build the app in a worker, which ends when its *parent* stops, or is gone.

    *counts* is the folder in which the workers sum their metrics. It stays on the
    core of its *number*, if there are such *cores*.
    """
    if cores:
        # Before there is any other thread. A core can have been taken away since.
        with suppress(OSError):
            os.sched_setaffinity(0, {cores[number]})
    # Ctrl-C, or systemd, signals the workers too; but when to stop, the parent says.
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    # Granian copies the environment into every request's. Secrets need not be there,
    # and the rest costs each request a microsecond.
    for name in [name for name in os.environ if not name.startswith(READ_LATER)]:
        del os.environ[name]
    write_to_stderr(settings.log_level)
    inherited = signal.getsignal(signal.SIGTERM)
    threading.Thread(
        target=_stop_with, args=(phase, parent, inherited, counts), daemon=True
    ).start()
    if settings.near_entries:
        threading.Thread(
            target=prioritize_network_thread, args=(inherited,), daemon=True
        ).start()
    share(counts)
    app = create_app(settings, draining=phase.is_ending)
    app.extensions[BEGIN]()
    ask_fast_path_before_wsgi()
    # A store that is not there is said now, rather than when somebody asks.
    with suppress(StoreUnavailable):
        app.extensions[PAGES].any.check_store()
    return app


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


def _stop_with(phase: SharedPhase, parent: int, inherited: object, counts: str) -> None:
    """Stop this worker with its *parent*, whose SIGKILL would announce nothing.

    Where SIGTERM's handler is still the *inherited* one, granian is not up yet.
    """
    while phase() is not Phase.STOPPING and os.getppid() == parent:
        time.sleep(PARENT_LOOKED_AT_EVERY)
    if os.getppid() != parent:
        shutil.rmtree(counts, ignore_errors=True)  # There is nobody else to do it.
    while (stop := signal.getsignal(signal.SIGTERM)) is inherited:
        time.sleep(PARENT_LOOKED_AT_EVERY)
    drop_new_connections()
    time.sleep(LAST_WORD_WITHIN)
    assert callable(stop)
    stop(signal.SIGTERM, None)  # Once only: a second time breaks what is in flight.
