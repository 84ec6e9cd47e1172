"""Stop the engine and remove its folder when the owner ends.

``engine`` runs this file as a script, in a process group of its own, with the read end
of a pipe as stdin. No process writes to that pipe: it ends when the owner closes it or
dies, in whatever way. The script imports few modules, all of the standard library,
because the owner waits for it to start.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

ENGINE_ENDED = 3
"""Exit status: the engine ended by itself, and was not stopped by the supervisor."""

STOP_TIMEOUT = 1.0
"""Seconds between SIGTERM and SIGKILL; the engine has nothing to save."""

_OWNER = 0  # stdin
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(folder: str, *command: str) -> int:
    """Run *command* until it ends, the owner does or a signal comes; remove *folder*.

    The engine shares our output. Returns an exit status.
    """
    wake = _listen_for_signals()
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # A binary may be a shell script around the engine: stop the whole group.
            process_group=0,
            preexec_fn=_die_with_the_supervisor,
        )
        _wait_for_an_end(engine, wake)
        ended_by_itself = engine.returncode is not None
        _stop(engine)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ENGINE_ENDED if ended_by_itself else 0


def _listen_for_signals() -> int:
    """Return a descriptor that yields the number of each signal that arrives."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # We inherit the signals that the owner blocks, and the engine would from us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake


def _wait_for_an_end(engine: subprocess.Popen[bytes], wake: int) -> None:
    while engine.poll() is None:
        ready, _, _ = select.select([_OWNER, wake], [], [])
        if _OWNER in ready:
            return
        # SIGCHLD also reports that the engine was paused or resumed: poll again.
        if set(os.read(wake, 64)) - {signal.SIGCHLD}:
            return


def _stop(engine: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(engine.pid, number)
        with suppress(subprocess.TimeoutExpired):
            engine.wait(STOP_TIMEOUT)


def _die_with_the_supervisor() -> None:
    """Ask the kernel to kill the engine when we are killed; only Linux can.

    Elsewhere a SIGKILL of the supervisor leaves the engine running.
    Source: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    """
    if sys.platform == "linux":
        with suppress(ImportError):  # A Python built without libffi has no ctypes.
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
