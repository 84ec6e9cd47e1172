"""A worker process: its core, its environment, its signals, its app and its end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from flask import Flask

from proxy.app import BEGIN, FILES, PAGES, create_app
from proxy.config.settings import Settings
from proxy.domain.failures import StoreUnavailable
from proxy.live_files import LiveFiles
from proxy.logs import write_to_stderr
from proxy.observability.multiprocess import share
from proxy.server.client_limits import limit_clients
from proxy.server.environment import scrub_framework_names, scrub_secrets
from proxy.server.granian_hook import ask_fast_path_before_wsgi
from proxy.server.phase import Phase, SharedPhase
from proxy.server.syn_filter import drop_new_connections
from proxy.server.thread_priority import prioritize_network_thread

PARENT_POLL_INTERVAL = 0.1
"""Seconds after which a worker notices that its parent stops, was killed, or wants
the files read again."""

FIRST_REQUEST_WITHIN = 0.2
"""Seconds in which a client that has just connected must begin its request."""

log = logging.getLogger(__name__)


def load_worker(
    settings: Settings,
    phase: SharedPhase,
    parent: int,
    counts: str,
    cores: Sequence[int],
    number: int,
) -> Flask:
    """Build the app in a worker, which ends when its *parent* stops or has died.

    *counts* is the folder in which the workers sum their metrics. The worker stays
    on the core of its *number*, if there are *cores*.
    """
    if cores:
        # Before there is any other thread. A core can have been taken away since.
        with suppress(OSError):
            os.sched_setaffinity(0, {cores[number]})
    # Ctrl-C and systemd signal the workers too, but the parent decides when to stop.
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    scrub_secrets(os.environ)
    scrub_framework_names(os.environ)
    write_to_stderr(settings.log_level)
    inherited = signal.getsignal(signal.SIGTERM)
    threading.Thread(
        target=_stop_with_parent, args=(phase, parent, inherited, counts), daemon=True
    ).start()
    if settings.near_entries:
        threading.Thread(
            target=prioritize_network_thread, args=(inherited,), daemon=True
        ).start()
    share(counts)
    app = create_app(settings, draining=phase.is_ending)
    app.extensions[BEGIN]()
    threading.Thread(
        target=_read_files_on_demand,
        args=(phase, app.extensions[FILES], number == 0),
        daemon=True,
    ).start()
    ask_fast_path_before_wsgi(limit_clients(settings.listen.port))
    # Report a missing store now, rather than at the first request.
    with suppress(StoreUnavailable):
        app.extensions[PAGES].any.check_store()
    return app


def cores_of_workers(workers: int, affinity: Collection[int], usable: int) -> list[int]:
    """Return the core for each of that many *workers*; empty if they may move.

    Each gets one where there are as many as cores that we may run on: a process of
    many threads that spreads over several cores is slower than on one. Fewer
    workers could be given a core that is busy beside an idle one. With a quota of
    fewer *usable* cores than are in our *affinity*, each container on a machine
    would choose the same ones.
    """
    return sorted(affinity) if workers == len(affinity) == usable else []


def current_affinity() -> Collection[int]:
    """Return the cores we may run on; empty where the system does not report them."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()


def _read_files_on_demand(phase: SharedPhase, files: LiveFiles, logs: bool) -> None:
    """Read the *files* again whenever the parent wants it; one worker *logs* it."""
    seen = phase.file_reads()
    while True:
        time.sleep(PARENT_POLL_INTERVAL)
        wanted = phase.file_reads()
        if wanted != seen:
            seen = wanted
            try:
                invalid = files.problems()
            except Exception:
                log.exception("cannot read the files again")
            else:
                if logs:
                    level = logging.ERROR if invalid else logging.INFO
                    log.log(level, "files read again", extra={"invalid": invalid})


def _stop_with_parent(
    phase: SharedPhase, parent: int, inherited: object, counts: str
) -> None:
    """Stop this worker with its *parent*, whose SIGKILL would announce nothing.

    While SIGTERM's handler is still the *inherited* one, granian is not up yet.
    """
    while phase() is not Phase.STOPPING and os.getppid() == parent:
        time.sleep(PARENT_POLL_INTERVAL)
    if os.getppid() != parent:
        shutil.rmtree(counts, ignore_errors=True)  # The parent can no longer do it.
    while (stop := signal.getsignal(signal.SIGTERM)) is inherited:
        time.sleep(PARENT_POLL_INTERVAL)
    drop_new_connections()
    time.sleep(FIRST_REQUEST_WITHIN)
    assert callable(stop)
    stop(signal.SIGTERM, None)  # Once: a second call breaks requests in flight.
