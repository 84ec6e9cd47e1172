"""Give the network thread of a worker priority over the threads that run Python.

A trick: it lowers the niceness of that thread, which needs CAP_SYS_NICE or RLIMIT_NICE
(root, in practice). It gains an eighth of a near-cache hit; with the near cache off it
would cost a fifth, so it is off then. Its price is a thread that lists this process's
threads ten times a second for ever; deleting it costs that eighth.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

GRANIAN_POLL_INTERVAL = 0.1
"""Seconds between checks whether granian is up."""

NETWORK_NICENESS = -10
"""Of the thread that reads and writes sockets."""

THREAD_POLL_INTERVAL = 0.1
"""Seconds for which a new thread may have the network thread's niceness."""


def prioritize_network_thread(inherited: object) -> None:
    """Prefer the thread that reads and writes sockets to those that run Python.

    It then reads everything that has arrived at once, and a thread that answers from
    the near cache is not preempted while it holds the GIL: an eighth less CPU for a
    hit. Without a near cache it would cost a fifth more: each hit waits for Redis, and
    the network thread then preempts it every time. If the system does not permit it
    (RLIMIT_NICE in getrlimit(2)), the thread keeps the usual niceness.

    Granian's threads inherit that niceness, and this thread resets it afterwards. If it
    were reset at creation, they could not start while sockets are readable, and granian
    creates another thread for each request that it reads: 390 for 64 clients.

    Waits until granian is up, when SIGTERM's handler is not the *inherited* one.
    """
    while signal.getsignal(signal.SIGTERM) is inherited:
        time.sleep(GRANIAN_POLL_INTERVAL)
    network = _network_thread()
    if network is None:
        return
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if not NETWORK_NICENESS < usual <= 0:
        # The process has a priority already, or was given a niceness above 0.
        return
    try:
        os.setpriority(os.PRIO_PROCESS, network, NETWORK_NICENESS)
    except OSError:
        return
    _keep_usual_niceness(usual, {network})


def _keep_usual_niceness(usual: int, seen: set[int]) -> None:
    """Give each thread that was not *seen* before the *usual* niceness, for ever."""
    while True:
        with suppress(OSError):  # Too many open files to list the threads.
            current = set(map(int, os.listdir("/proc/self/task")))
            for thread in current - seen:
                with suppress(OSError):  # It has ended.
                    os.setpriority(os.PRIO_PROCESS, thread, usual)
            seen = current
        time.sleep(THREAD_POLL_INTERVAL)


def _network_thread() -> int | None:
    """Return the id of the thread of granian's runtime.

    The threads that it creates have its name too: it is the oldest of that name.
    """
    threads = []
    for stat in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            started_at = int(rest.split()[19])
            if name.partition("(")[2] == "tokio-rt-worker":
                threads.append((started_at, int(stat.parent.name)))
    return min(threads)[1] if threads else None
