"""Runs the engine, and leaves nothing of it behind once its owner is gone.

``engine`` runs this file as a script, in a process group of its own, with the read end
of a pipe for stdin. Nobody writes to that pipe: it ends when the owner closes it or
dies, in whatever way. It imports the standard library alone, and little of it, since
the owner waits for it to start.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

ENGINE_ENDED = 3
"""Exit status that says: the engine ended by itself, I did not stop it."""

STOPPED_AFTER = 1.0
"""How long the engine may take over SIGTERM before SIGKILL; it has nothing to save."""

NICENESS = -10
"""Of the engine, where the system permits it."""

_OWNER = 0  # stdin
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(folder: str, *command: str) -> int:
    """Run *command* until it ends, the owner does or a signal comes; remove *folder*.

    The engine's output goes where ours goes. Returns an exit status.
    """
    wake = _listen_for_signals()
    _go_first()
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # A binary may be a shell script around the engine: stop the whole group.
            process_group=0,
            preexec_fn=_die_with_the_watchdog,
        )
        _wait_for_an_end(engine, wake)
        ended_by_itself = engine.returncode is not None
        _stop(engine)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ENGINE_ENDED if ended_by_itself else 0


def _listen_for_signals() -> int:
    """A descriptor from which the number of each signal that comes can be read."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # An owner that blocks signals hands that down to us, and through us to the engine.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake


def _go_first() -> None:
    """Let the engine, which we start, go before those that wait for it.

    It takes microseconds for each of them, and would queue with dozens of threads.
    This holds within a session, and ours is theirs: Linux weighs sessions against each
    other first, and 6.18 has left an engine with one of its own, beside two full
    cores, ready to run and waiting for up to 0.4 s.
    Source: https://man7.org/linux/man-pages/man7/sched.7.html (the autogroup feature)
    """
    with suppress(OSError):
        # A niceness above 0 is somebody's wish, and stays.
        if NICENESS < os.getpriority(os.PRIO_PROCESS, 0) <= 0:
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def _wait_for_an_end(engine: subprocess.Popen[bytes], wake: int) -> None:
    while engine.poll() is None:
        ready, _, _ = select.select([_OWNER, wake], [], [])
        if _OWNER in ready:
            return
        # SIGCHLD also says that the engine was paused or resumed: look again.
        if set(os.read(wake, 64)) - {signal.SIGCHLD}:
            return


def _stop(engine: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(engine.pid, number)
        with suppress(subprocess.TimeoutExpired):
            engine.wait(STOPPED_AFTER)


def _die_with_the_watchdog() -> None:
    """Have the kernel kill the engine if we are killed outright; only Linux can.

    Elsewhere a SIGKILL of the watchdog leaves the engine running.
    Source: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    """
    if sys.platform == "linux":
        with suppress(ImportError):  # a Python built without libffi has no ctypes
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
