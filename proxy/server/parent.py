"""The parent process: it owns the workers, drains on SIGTERM, and then stops them."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from proxy.app import create_app, log_warnings
from proxy.config.readers import Address
from proxy.config.rows import usable_cores
from proxy.config.settings import Settings, SettingsError
from proxy.logs import JsonLines
from proxy.server.hangup import Hangup, HangupRule
from proxy.server.phase import Phase, SharedPhase
from proxy.server.worker import cores_of_workers, current_affinity, load_worker
from proxy.web.responses import IDLE_TIMEOUT

CONNECTIONS = 4096
"""Connections that a worker holds at once; more wait in the system's queue."""

IN_MEMORY = "/dev/shm"
"""Where the system keeps files in memory."""

THREAD_IDLE_TIMEOUT = 60
"""Seconds that a thread without work waits for some before it ends."""

log = logging.getLogger(__name__)

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}


class DrainingServer(MPServer):
    """Granian's parent, which drains for *drain_for* seconds before it stops.

    It also drains when granian gives up a worker that dies again and again, for
    the sake of the workers that live.
    """

    def __init__(self, phase: SharedPhase, drain_for: float, **options: Any) -> None:
        super().__init__("proxy", **options)
        self._phase = phase
        self._drain_for = drain_for
        self._hangup = HangupRule()

    # MPServer's own has other parameters than its parent's.
    def _spawn_worker(  # type: ignore[override]
        self, idx: int, target: Any, callback_loader: Callable[..., Any]
    ) -> WorkerProcess:
        """Pass the worker its number, which is that of the worker it replaces."""
        return super()._spawn_worker(idx, target, partial(callback_loader, idx))

    def signal_handler_reload(self, *_: Any, **__: Any) -> None:
        """Note that SIGHUP came; `_reload` acts on it, outside the signal handler."""
        self.reload_signal = True
        self.main_loop_interrupt.set()

    def _reload(self, *_: Any) -> None:
        """Tell the workers to read the files again, or stop without the terminal.

        Granian would start new workers, which would have the same settings.
        """
        self.reload_signal = False
        self.main_loop_interrupt.clear()
        match self._hangup():
            case Hangup.IGNORE:
                log.info("SIGHUP ignored, because it was at the start")
            case Hangup.READ_FILES:
                self._phase.read_files_again()
            case Hangup.STOP:
                log.info("the terminal is gone")
                self.signal_handler_interrupt()  # type: ignore[no-untyped-call]
        if self.interrupt_signal or self.interrupt_children:
            self.main_loop_interrupt.set()  # It may have come before the clear.

    def shutdown(self, exit_code: int = 0) -> None:
        """Drain, and then stop the workers, which finish their requests in flight.

        Granian calls this after SIGTERM or SIGINT.
        """
        log.info("draining", extra={"seconds": self._drain_for})
        self._phase.advance_to(Phase.DRAINING)
        self._wait_for_drain()
        log.info("stopping")
        self._phase.advance_to(Phase.STOPPING)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # it has no types

    def _wait_for_drain(self) -> None:
        """Wait until time is up, all workers have ended, or a second signal comes."""
        ends_at = time.monotonic() + self._drain_for
        self.interrupt_signal = False
        while multiprocessing.active_children():
            left = ends_at - time.monotonic()
            if self.interrupt_signal or left <= 0:
                return
            self.main_loop_interrupt.clear()
            self.main_loop_interrupt.wait(left)


def serve(settings: Settings, announce: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT, drain, finish requests in flight and return.

    *announce* is called once the settings have passed every check.

    Raises:
        SettingsError: a file that the settings name is invalid, or something else
            listens at this address already.
        SystemExit: with 1, because a worker died again as soon as it was replaced.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # Until granian handles it; by default it would end the process.
        signal.signal(signal.SIGHUP, lambda *_: None)
    create_app(settings)  # Report mistakes here; a worker could only die of them.
    check_free(settings.listen)
    folder = writable_folder()
    log_warnings(settings)  # Not in each worker.
    announce()
    log.info(
        "serving",
        extra={
            "listen": str(settings.listen),
            "store": settings.store_url.masked,
            "graph": f"{settings.graph_url}/{settings.graph_version}",
            "workers": settings.workers,
        },
    )
    phase = SharedPhase(folder)
    server = new_server(settings, phase)
    cores = cores_of_workers(settings.workers, current_affinity(), usable_cores())
    with TemporaryDirectory(
        prefix="profile-proxy-",
        dir=folder,
        ignore_cleanup_errors=True,
    ) as counts:
        loader = partial(load_worker, settings, phase, os.getpid(), counts, cores)
        server.serve(target_loader=loader, wrap_loader=False)


def new_server(settings: Settings, phase: SharedPhase) -> DrainingServer:
    """Return granian's parent, configured by the *settings*; it does not serve yet."""
    return DrainingServer(
        phase,
        settings.drain_for,
        address=settings.listen.host,
        port=settings.listen.port,
        interface=Interfaces.WSGI,
        # To detect which HTTP it is, hyper would wait for ever for a first byte.
        http=HTTPModes.http1,
        workers=settings.workers,
        runtime_threads=1,
        blocking_threads=settings.threads,
        blocking_threads_idle_timeout=THREAD_IDLE_TIMEOUT,
        backpressure=CONNECTIONS,
        backlog=CONNECTIONS,
        # Also the limit on an idle connection; `silent_clients` has one for heads.
        http1_settings=HTTP1Settings(header_read_timeout=IDLE_TIMEOUT * 1000),
        respawn_failed_workers=True,
        workers_kill_timeout=math.ceil(2 * settings.graph_timeout + 5),
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    )


def writable_folder(in_memory: str = IN_MEMORY) -> str:
    """Return the folder for files that the workers share: *in_memory* if possible.

    Raises:
        SettingsError: no folder for temporary files can be written to either.
    """
    if os.access(in_memory, os.W_OK | os.X_OK):
        return in_memory
    try:
        return gettempdir()
    except FileNotFoundError:
        raise SettingsError(
            [
                f"{in_memory} or TMPDIR must be writable: the workers share their"
                " counts there."
            ]
        ) from None


def check_free(address: Address) -> None:
    """Check that nothing listens at *address* yet.

    Workers share their port (SO_REUSEPORT), and a second service of ours would
    share it with them: half of the requests would go to each.

    Raises:
        SettingsError: something does, or the address is not this machine's.
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
